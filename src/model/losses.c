#include "model/losses.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { GROUPS_BYTES = 512 };

// What the config says of a loss.
typedef struct loss_rule {
    double weight;
    char *const *groups;
    int64_t count; // 0: all
} loss_rule;

static loss_rule find_rule(const tv_config_loss *config, const char *name)
{
    if (strcmp(name, "commitment") == 0)
        return (loss_rule){config->commitment_weight, config->commitment_groups, config->commitment_group_count};
    return (loss_rule){config->cross_entropy_weight, config->cross_entropy_groups, config->cross_entropy_group_count};
}

// `own`: the tensor is of the part in which the loss begins.
static int in_group(const char *group, const tv_tensor_spec *spec, int own)
{
    size_t length = strlen(group);
    if (strcmp(group, "all") == 0 || (own && strcmp(group, "part") == 0) || strcmp(group, spec->part) == 0)
        return 1;
    return strncmp(spec->name, group, length) == 0 && (spec->name[length] == '.' || spec->name[length] == '\0');
}

static int may_move(const loss_rule *rule, const tv_tensor_spec *spec, int own)
{
    for (int64_t g = 0; g < rule->count; g++)
        if (in_group(rule->groups[g], spec, own))
            return 1;
    return rule->count == 0;
}

// The kinds of the table, each once.
static void list_kinds(const tv_params *params, char out[GROUPS_BYTES])
{
    size_t used = 0;
    out[0] = '\0';
    for (int64_t i = 0; i < params->count && used < GROUPS_BYTES; i++) {
        int known = 0;
        for (int64_t j = 0; j < i; j++)
            known |= strcmp(params->items[i].spec.part, params->items[j].spec.part) == 0;
        if (!known)
            used += (size_t)snprintf(out + used, GROUPS_BYTES - used, ", %s", params->items[i].spec.part);
    }
}

static tv_status check_groups(const tv_params *params, const char *loss, const loss_rule *rule)
{
    char kinds[GROUPS_BYTES];
    for (int64_t g = 0; g < rule->count; g++) {
        int known = 0;
        for (int64_t i = 0; i < params->count; i++)
            known |= in_group(rule->groups[g], &params->items[i].spec, 1);
        if (known)
            continue;
        list_kinds(params, kinds);
        return TV_FAIL(TV_CONFIG,
                       "loss.%s_groups: '%.64s' is no group of this model; take of all, part%s, or the name of a part "
                       "or tensor, such as %s",
                       loss, rule->groups[g], kinds, params->items[params->count - 1].spec.name);
    }
    return TV_OK;
}

// The losses of the parts that have a weight, last part first.
static tv_status number_losses(tv_losses *losses, tv_part **parts, int64_t part_count, const tv_config_loss *config)
{
    for (int64_t i = part_count - 1; i >= 0; i--) {
        parts[i]->index = i;
        parts[i]->loss_bit = 0;
        if (parts[i]->loss == NULL || find_rule(config, parts[i]->loss).weight == 0)
            continue;
        if (losses->count == TV_LOSSES_MAX)
            return TV_FAIL(TV_INTERNAL, "%s has one loss more than the %d that there may be", parts[i]->name,
                           TV_LOSSES_MAX);
        losses->part[losses->count] = i;
        parts[i]->loss_bit = 1u << losses->count++;
    }
    return TV_OK;
}

static tv_status add_pass(tv_losses *losses, uint32_t off, int64_t index)
{
    // Tensors come in the order of the parts, so a pass has its first one, and more losses have begun in it than here.
    for (int p = 0; p < losses->passes; p++)
        if ((losses->off[p] & tv_losses_begun(losses, index)) == off)
            return TV_OK;
    if (losses->passes == TV_PASSES_MAX)
        return TV_FAIL(TV_CONFIG,
                       "the loss.*_groups make more than %d sets of losses, each a backward of its own; take lists "
                       "that are more alike",
                       TV_PASSES_MAX);
    losses->off[losses->passes] = off;
    losses->first[losses->passes++] = index;
    return TV_OK;
}

// losses_off of one tensor of part `index`, and its pass.
static tv_status place_tensor(tv_losses *losses, tv_part **parts, int64_t index, tv_param *param,
                              const tv_config_loss *config)
{
    uint32_t begun = tv_losses_begun(losses, index);
    param->losses_off = 0;
    for (int j = 0; j < losses->count; j++) {
        loss_rule rule = find_rule(config, parts[losses->part[j]]->loss);
        if ((begun & 1u << j) && !may_move(&rule, &param->spec, losses->part[j] == index))
            param->losses_off |= 1u << j;
    }
    if (param->spec.frozen)
        return TV_OK;
    if (begun & ~param->losses_off)
        return add_pass(losses, param->losses_off, index);
    if (param->spec.placement != TV_PLACE_TABLE)
        return TV_OK;
    return TV_FAIL(TV_CONFIG,
                   "no loss may move '%s', but its rows' use is counted with their votes; name %s in "
                   "loss.cross_entropy_groups, or take the part out",
                   param->spec.name, param->spec.part);
}

tv_status tv_losses_resolve(tv_losses *losses, tv_part **parts, int64_t part_count, tv_params *params,
                            const tv_config_loss *config)
{
    memset(losses, 0, sizeof *losses);
    TV_TRY(number_losses(losses, parts, part_count, config));
    for (int j = 0; j < losses->count; j++) {
        const char *name = parts[losses->part[j]]->loss;
        loss_rule rule = find_rule(config, name);
        TV_TRY(check_groups(params, name, &rule));
    }
    for (int64_t i = 0; i < part_count; i++) {
        int64_t end = i + 1 < part_count ? parts[i + 1]->first : params->count;
        for (int64_t t = parts[i]->first; t < end; t++)
            TV_TRY(place_tensor(losses, parts, i, &params->items[t], config));
    }
    if (losses->passes == 0)
        return TV_FAIL(TV_CONFIG, "no loss moves anything; give loss.cross_entropy_weight a value above 0, and "
                                  "loss.cross_entropy_groups: all");
    return TV_OK;
}

uint32_t tv_losses_begun(const tv_losses *losses, int64_t index)
{
    uint32_t begun = 0;
    for (int j = 0; j < losses->count; j++)
        begun |= losses->part[j] >= index ? 1u << j : 0;
    return begun;
}

int tv_losses_run(const tv_losses *losses, int pass, int64_t index)
{
    uint32_t begun = tv_losses_begun(losses, index), off = losses->off[pass] & begun;
    int run = 0;
    if (off == begun)
        return -1;
    while ((losses->off[run] & begun) != off)
        run++;
    return run;
}

int tv_losses_wanted(const tv_losses *losses, int pass, int64_t index)
{
    for (int p = 0; p < losses->passes; p++)
        if (losses->first[p] <= index && tv_losses_run(losses, p, index) == pass)
            return 1;
    return 0;
}
