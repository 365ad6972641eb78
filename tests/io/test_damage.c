// Damage by chance and by hand: every flipped bit is seen, and each lie of a manifest is named though its hashes agree.
#include "io_fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "manifest_edit.h"

#define SHARD "shard-00000-of-00001.h5"

static char *folder, *good; // good: a checkpoint that no test changes

static int make_good(void **state)
{
    (void)state;
    folder = io_folder_new();
    io_save(folder, 1, 1);
    good = strdup(io_path("%s/step-000000001", folder));
    return good ? 0 : -1;
}

static int drop_good(void **state)
{
    (void)state;
    free(good);
    io_folder_free(folder);
    return 0;
}

// A fresh copy of the good one.
static const char *copy_good(void)
{
    static char path[512];
    static int number;
    snprintf(path, sizeof path, "%s/copy-%d", folder, number++);
    io_copy_folder(good, path);
    return path;
}

static void test_flipped_bits(void **state)
{
    (void)state;
    static const char *const names[] = {"manifest.json", "checksums.xxh128", SHARD};
    enum { PLACES = 150 };
    const char *dir = copy_good();
    assert_ok(tv_checkpoint_verify(dir));
    for (size_t i = 0; i < 3; i++) {
        const char *path = io_path("%s/%s", dir, names[i]);
        struct stat about;
        assert_int_equal(stat(path, &about), 0);
        size_t size = (size_t)about.st_size;
        for (size_t k = 0; k < PLACES; k++) {
            size_t byte = k == PLACES - 1 ? size - 1 : k * size / PLACES;
            io_flip_bit(path, byte, (int)(k % 8));
            if (tv_checkpoint_verify(dir) != TV_CHECKPOINT)
                fail_msg("%s: bit %zu of byte %zu was not seen", names[i], k % 8, byte);
            assert_message(names[i]);
            io_flip_bit(path, byte, (int)(k % 8));
        }
    }
    assert_ok(tv_checkpoint_verify(dir));
}

// One random bit anywhere, weighed by size: seen each time, and a run that resumes never takes it.
static void test_random_bits(void **state)
{
    (void)state;
    static const char *const names[] = {"manifest.json", "checksums.xxh128", SHARD};
    enum { FLIPS = 500 };
    tv_comm *comm = NULL;
    char *run = strdup(io_path("%s/random", folder));
    const char *dir = strdup(io_path("%s/step-000000001", run));
    assert_ok(tv_comm_open_self(&comm));
    assert_int_equal(mkdir(run, 0755), 0);
    io_copy_folder(good, dir);
    uint64_t x = 20260101;
    for (int i = 0; i < FLIPS; i++) {
        size_t sizes[3], total = 0, which = 0;
        for (int f = 0; f < 3; f++) {
            struct stat about;
            assert_int_equal(stat(io_path("%s/%s", dir, names[f]), &about), 0);
            total += sizes[f] = (size_t)about.st_size;
        }
        x = x * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(x >> 20) % total;
        for (; at >= sizes[which]; which++)
            at -= sizes[which];
        int bit = (int)(x >> 60) % 8;
        char *found = NULL;
        tv_checkpoint *checkpoint = NULL;
        io_flip_bit(io_path("%s/%s", dir, names[which]), at, bit);
        if (tv_checkpoint_verify(dir) != TV_CHECKPOINT)
            fail_msg("%s: bit %d of byte %zu was not seen", names[which], bit, at);
        assert_status(TV_CHECKPOINT, tv_checkpoint_open(dir, 1, &checkpoint));
        assert_status(TV_CHECKPOINT, tv_checkpoint_newest(comm, run, &found));
        assert_null(found);
        // Without the hashes HDF5 sees the damage itself: it may say so or not, and must live.
        if (tv_checkpoint_open(dir, 0, &checkpoint) == TV_OK) {
            tv_hash128 digest;
            (void)tv_checkpoint_digest(checkpoint, &digest);
        }
        tv_checkpoint_close(checkpoint);
        io_flip_bit(io_path("%s/%s", dir, names[which]), at, bit);
    }
    assert_ok(tv_checkpoint_verify(dir));
    tv_comm_close(comm);
    free((char *)dir);
    free(run);
}

// The list, which is short, in each of its bits.
static void test_flipped_bits_of_list(void **state)
{
    (void)state;
    const char *dir = copy_good(), *path = io_path("%s/checksums.xxh128", dir);
    size_t size;
    free(io_read(path, &size));
    for (size_t bit = 0; bit < 8 * size; bit++) {
        io_flip_bit(path, bit / 8, (int)(bit % 8));
        assert_status(TV_CHECKPOINT, tv_checkpoint_verify(dir));
        io_flip_bit(path, bit / 8, (int)(bit % 8));
    }
}

static void append(const char *path, const char *text)
{
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void cut_shard(const char *dir) { assert_int_equal(truncate(io_path("%s/" SHARD, dir), 4000), 0); }
static void empty_shard(const char *dir) { assert_int_equal(truncate(io_path("%s/" SHARD, dir), 0), 0); }
static void lose_shard(const char *dir) { assert_int_equal(unlink(io_path("%s/" SHARD, dir)), 0); }
static void lose_list(const char *dir) { assert_int_equal(unlink(io_path("%s/checksums.xxh128", dir)), 0); }
static void lose_manifest(const char *dir) { assert_int_equal(unlink(io_path("%s/manifest.json", dir)), 0); }
static void append_to_shard(const char *dir) { append(io_path("%s/" SHARD, dir), "x"); }
static void append_to_list(const char *dir) { append(io_path("%s/checksums.xxh128", dir), "\n"); }
static void append_to_manifest(const char *dir) { append(io_path("%s/manifest.json", dir), "\n"); }

static void link_instead(const char *dir, const char *name)
{
    const char *path = io_path("%s/%s", dir, name);
    assert_int_equal(rename(path, io_path("%s/elsewhere", dir)), 0);
    assert_int_equal(symlink("elsewhere", path), 0);
}
static void link_shard(const char *dir) { link_instead(dir, SHARD); }
static void link_manifest(const char *dir) { link_instead(dir, "manifest.json"); }

static void folder_as_shard(const char *dir)
{
    lose_shard(dir);
    assert_int_equal(mkdir(io_path("%s/" SHARD, dir), 0755), 0);
}

static void store_text(const char *dir, const char *text) { edit_store_text(dir, text, strlen(text)); }
static void not_json(const char *dir) { store_text(dir, "{\"format\": 1,"); }
static void json_list(const char *dir) { store_text(dir, "[1]"); }
static void no_format(const char *dir) { store_text(dir, "{}"); }
static void format_only(const char *dir) { store_text(dir, "{\"format\": 1}"); }
static void huge_number(const char *dir) { store_text(dir, "{\"format\": 99999999999999999999}"); }
static void twice(const char *dir) { store_text(dir, "{\"format\": 1, \"format\": 1}"); }
static void old_format(const char *dir) { store_text(dir, "{\"format\": 0}"); }

static void deep_list(const char *dir)
{
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    edit_store_text(dir, text, DEPTH);
    free(text);
}

// Sets a key of an object of the good manifest; `what` picks the object.
static void set_key(const char *dir, const char *what, const char *key, json_t *value)
{
    json_t *manifest = edit_load(dir), *object = manifest;
    if (strcmp(what, "array") == 0)
        object = edit_array(manifest, "embed", "T");
    else if (strcmp(what, "exponents") == 0)
        object = edit_array(manifest, "embed", "E");
    else if (strcmp(what, "block") == 0)
        object = edit_block(manifest, "embed", "T_accum", 0);
    else if (strcmp(what, "file") == 0)
        object = json_array_get(json_object_get(manifest, "files"), 0);
    assert_int_equal(json_object_set_new(object, key, value), 0);
    edit_store(dir, manifest);
}

static void newer_format(const char *dir) { set_key(dir, "root", "format", json_integer(2)); }
static void step_negative(const char *dir) { set_key(dir, "root", "step", json_integer(-1)); }
static void step_text(const char *dir) { set_key(dir, "root", "step", json_string("1")); }
static void digest_short(const char *dir) { set_key(dir, "root", "digest", json_string("12ab")); }
static void program_long(const char *dir)
{
    char text[100];
    memset(text, 'x', 99);
    text[99] = '\0';
    set_key(dir, "root", "program", json_string(text));
}
static void arrays_number(const char *dir) { set_key(dir, "root", "arrays", json_integer(3)); }
static void file_up(const char *dir) { set_key(dir, "file", "name", json_string("../" SHARD)); }
static void file_absolute(const char *dir) { set_key(dir, "file", "name", json_string("/etc/passwd")); }
static void file_hidden(const char *dir) { set_key(dir, "file", "name", json_string(".x")); }
static void file_newline(const char *dir) { set_key(dir, "file", "name", json_string("a\nb")); }
static void file_huge(const char *dir)
{
    json_t *manifest = edit_load(dir);
    json_t *file = json_array_get(json_object_get(manifest, "files"), 0);
    lose_shard(dir); // or edit_store would put the true size back
    json_object_set_new(file, "bytes", json_integer(INT64_MAX));
    edit_store(dir, manifest);
}
static void name_up(const char *dir) { set_key(dir, "array", "name", json_string("..")); }
static void part_slash(const char *dir) { set_key(dir, "array", "part", json_string("T/x")); }
static void dtype_float(const char *dir) { set_key(dir, "array", "dtype", json_string("float32")); }
static void rows_huge(const char *dir) { set_key(dir, "array", "rows", json_integer(INT64_MAX)); }
static void cols_zero(const char *dir) { set_key(dir, "array", "cols", json_integer(0)); }
static void cols_other(const char *dir) { set_key(dir, "array", "cols", json_integer(4)); }
static void trits_signed(const char *dir) { set_key(dir, "array", "dtype", json_string("int8")); }
static void mantissa_four(const char *dir) { set_key(dir, "array", "m", json_integer(4)); }
static void base_far(const char *dir) { set_key(dir, "array", "b", json_integer(1000)); }
static void exponents_wide(const char *dir) { set_key(dir, "exponents", "dtype", json_string("int32")); }
static void dataset_up(const char *dir) { set_key(dir, "block", "dataset", json_string("/tensors/../embed/T_accum")); }
static void dataset_other(const char *dir) { set_key(dir, "block", "dataset", json_string("/tensors/embed/T")); }
static void block_unknown_file(const char *dir) { set_key(dir, "block", "file", json_string("other.h5")); }
static void block_file_up(const char *dir) { set_key(dir, "block", "file", json_string("../" SHARD)); }
static void block_empty(const char *dir) { set_key(dir, "block", "rows", json_integer(0)); }
static void block_behind(const char *dir) { set_key(dir, "block", "first_row", json_integer(1)); }
static void block_short(const char *dir) { set_key(dir, "block", "rows", json_integer(36)); }
static void block_negative(const char *dir) { set_key(dir, "block", "first_row", json_integer(-1)); }
static void block_no_hash(const char *dir) { set_key(dir, "block", "xxh3", json_string("zz")); }

// Wide rows in a small file: a reader that believed it would ask for terabytes.
static void rows_wide(const char *dir)
{
    json_t *manifest = edit_load(dir), *array = edit_array(manifest, "edges", "src");
    json_object_set_new(array, "cols", json_integer((json_int_t)1 << 40));
    edit_store(dir, manifest);
}

static void add_block(const char *dir, json_int_t first_row, json_int_t rows)
{
    json_t *manifest = edit_load(dir), *block = json_deep_copy(edit_block(manifest, "embed", "T_accum", 0));
    json_object_set_new(edit_block(manifest, "embed", "T_accum", 0), "rows", json_integer(20));
    json_object_set_new(block, "first_row", json_integer(first_row));
    json_object_set_new(block, "rows", json_integer(rows));
    json_array_insert_new(json_object_get(edit_array(manifest, "embed", "T_accum"), "blocks"), 0, block);
    edit_store(dir, manifest);
}
static void gap(const char *dir) { add_block(dir, 25, 12); }
static void overlap(const char *dir) { add_block(dir, 19, 18); }

static void array_twice(const char *dir)
{
    json_t *manifest = edit_load(dir);
    json_array_append(json_object_get(manifest, "arrays"), edit_array(manifest, "edges", "src"));
    edit_store(dir, manifest);
}

static void file_twice(const char *dir)
{
    json_t *manifest = edit_load(dir), *files = json_object_get(manifest, "files");
    json_array_append(files, json_array_get(files, 0));
    edit_store(dir, manifest);
}

static const struct {
    const char *name;
    void (*damage)(const char *dir);
    const char *message;
} cases[] = {
    {"truncated shard", cut_shard, SHARD " has 4000 bytes, the manifest says"},
    {"empty shard", empty_shard, SHARD " has 0 bytes, the manifest says"},
    {"missing shard", lose_shard, SHARD " is missing"},
    {"missing list", lose_list, "checksums.xxh128 is missing"},
    {"missing manifest", lose_manifest, "manifest.json is missing"},
    {"extra byte in the shard", append_to_shard, SHARD " has "},
    {"extra byte in the list", append_to_list, "checksums.xxh128 is damaged"},
    {"extra byte in the manifest", append_to_manifest, "manifest.json or checksums.xxh128 is damaged"},
    {"symlinked shard", link_shard, SHARD " is a symbolic link, which is refused"},
    {"symlinked manifest", link_manifest, "manifest.json is a symbolic link, which is refused"},
    {"folder as shard", folder_as_shard, SHARD " is not a regular file"},
    {"not JSON", not_json, "manifest.json: line 1: "},
    {"JSON list", json_list, "no JSON object"},
    {"no format", no_format, "'format' is missing"},
    {"nothing but a format", format_only, "Object item not found: program"},
    {"a number too large", huge_number, "too big integer"},
    {"a key twice", twice, "duplicate object key"},
    {"lists in lists", deep_list, "maximum parsing depth"},
    {"older format", old_format, "format 0 is unknown; this trivote reads format 1"},
    {"newer format", newer_format, "written by a newer trivote (format 2); this one reads format 1: update trivote"},
    {"negative step", step_negative, "'step' is -1, outside"},
    {"step as text", step_text, "Expected integer, got string"},
    {"short digest", digest_short, "'digest' is not 32 hex digits"},
    {"long program", program_long, "'program' is longer than 63 bytes"},
    {"arrays as a number", arrays_number, "'arrays' is missing or not a list"},
    {"file above the folder", file_up, "files[0]: the file name '../" SHARD "' contains '/' or '..'"},
    {"absolute file", file_absolute, "files[0]: the file name '/etc/passwd' contains '/' or '..'"},
    {"hidden file", file_hidden, "starts with '.'"},
    {"line end in a file name", file_newline, "holds a character other than"},
    {"absurd file size", file_huge, SHARD " is missing"},
    {"array name '..'", name_up, "arrays[0]: the name '..' contains '/' or '..'"},
    {"part with a slash", part_slash, "arrays[0]: the part 'T/x' contains '/' or '..'"},
    {"float state", dtype_float, "'dtype' is 'float32'"},
    {"absurd rows", rows_huge, "'rows' is 9223372036854775807, outside"},
    {"no columns", cols_zero, "'cols' is 0, outside"},
    {"other columns", cols_other, "ceil(13 / 5) columns, not uint8 with 4"},
    {"signed trits", trits_signed, "packed trits are uint8"},
    {"four mantissa bits", mantissa_four, "'m' is 4, outside 0 to 3"},
    {"base exponent far off", base_far, "'b' is 1000, outside"},
    {"wide exponents", exponents_wide, "exponents are int8"},
    {"'..' in a dataset path", dataset_up, "'/tensors/../embed/T_accum' contains '..' and is refused"},
    {"another dataset", dataset_other, "must be '/tensors/embed/T_accum'"},
    {"unlisted file", block_unknown_file, "the file 'other.h5' is not in 'files'"},
    {"block above the folder", block_file_up, "contains '/' or '..'"},
    {"empty block", block_empty, "'rows' is 0, outside"},
    {"block that passes the end", block_behind, "passes the 37 rows"},
    {"short block", block_short, "embed T_accum: rows 36 to 36 are missing"},
    {"block before the start", block_negative, "'first_row' is -1, outside"},
    {"block without a hash", block_no_hash, "'xxh3' is not 32 hex digits"},
    {"absurd row width", rows_wide, SHARD " has "},
    {"gap", gap, "embed T_accum: rows 20 to 24 are missing"},
    {"overlap", overlap, "embed T_accum: row 19 is there twice"},
    {"array twice", array_twice, "the array edges src is listed twice"},
    {"file twice", file_twice, "the file " SHARD "  is listed twice"},
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = copy_good();
        tv_checkpoint *checkpoint = NULL;
        cases[i].damage(dir);
        tv_status st = tv_checkpoint_verify(dir);
        if (st != TV_CHECKPOINT)
            fail_msg("%s: %s: %s", cases[i].name, tv_status_name(st), tv_status_message());
        assert_message(cases[i].message);
        assert_message(dir);
        assert_status(TV_CHECKPOINT, tv_checkpoint_open(dir, 1, &checkpoint));
        assert_null(checkpoint);
    }
    assert_ok(tv_checkpoint_verify(good));
}

// The editing itself does no harm: a copy with hashes written anew is valid.
static void test_edit_is_neutral(void **state)
{
    (void)state;
    const char *dir = copy_good();
    edit_rehash(dir);
    assert_ok(tv_checkpoint_verify(dir));
}

int main(void)
{
    tv_log_init(0, 1, TV_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edit_is_neutral),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_flipped_bits_of_list),
        cmocka_unit_test(test_random_bits),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, make_good, drop_good);
}
