// The config reader on any bytes: it reads them or says where they are wrong; what it read it can write and read again.
#include "fuzz_target.h"

#include <string.h>

#include "base/config.h"

static char *text_of(const tv_config *config)
{
    char *text = NULL;
    FUZZ_EXPECT(tv_config_text(config, &text) == TV_OK);
    return text;
}

// The written text reads back to the same config, whatever was read before.
static void check_round_trip(const tv_config *config)
{
    tv_config back;
    tv_hash128 hash, hash_back;
    char difference[64];
    char *text = text_of(config);
    FUZZ_EXPECT(tv_config_init(&back) == TV_OK);
    FUZZ_EXPECT(tv_config_read_text(&back, "text", text, strlen(text)) == TV_OK);
    char *again = text_of(&back);
    FUZZ_EXPECT(strcmp(text, again) == 0);
    FUZZ_EXPECT(tv_config_hash(config, &hash) == TV_OK && tv_config_hash(&back, &hash_back) == TV_OK);
    FUZZ_EXPECT(tv_hash_equal(hash, hash_back));
    FUZZ_EXPECT(tv_config_difference(config, text, difference, sizeof difference) == TV_OK && !difference[0]);
    tv_config_free(&back);
    free(again);
    free(text);
}

static void run_text(const uint8_t *data, size_t bytes)
{
    tv_config config;
    FUZZ_EXPECT(tv_config_init(&config) == TV_OK);
    tv_status st = tv_config_read_text(&config, "input", (const char *)data, bytes);
    FUZZ_EXPECT(st == TV_OK || st == TV_CONFIG);
    if (st == TV_CONFIG) {
        int line = 0;
        FUZZ_EXPECT(sscanf(tv_status_message(), "input:%d: ", &line) == 1 && line > 0);
    }
    st = tv_config_check(&config);
    FUZZ_EXPECT(st == TV_OK || st == TV_CONFIG);
    check_round_trip(&config);
    tv_config_free(&config);
}

// The same bytes as one assignment, and as the value of a key of each kind.
static void run_assignment(const char *prefix, const uint8_t *data, size_t bytes)
{
    tv_config config;
    size_t length = strlen(prefix);
    char *text = malloc(length + bytes + 1);
    FUZZ_EXPECT(text && tv_config_init(&config) == TV_OK);
    memcpy(text, prefix, length);
    if (bytes)
        memcpy(text + length, data, bytes);
    text[length + bytes] = '\0';
    tv_status st = tv_config_set(&config, text);
    FUZZ_EXPECT(st == TV_OK || st == TV_CONFIG);
    FUZZ_EXPECT(st == TV_OK || strncmp(tv_status_message(), "--set ", 6) == 0);
    if (st == TV_OK) // most inputs are no assignment, and the way there and back takes far longer than they do
        check_round_trip(&config);
    tv_config_free(&config);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char *const prefixes[] = {
        "", "train.seed=", "update.step=", "model.scale_type=", "data.valid=", "data.train="};
    run_text(data, bytes);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes && bytes < 4096; i++)
        run_assignment(prefixes[i], data, bytes);
    return 0;
}
