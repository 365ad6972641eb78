// Steps that a backend may do at once: its own way, or the ops one after the other.
#include "kernels/kernels.h"

tv_status tv_linear_turn(const tv_backend *backend, const tv_linear_turn_args *a, void *stream)
{
    if (backend->joint.linear_turn)
        return backend->joint.linear_turn(a, stream);
    TV_TRY(backend->quantize_both(&a->gradient, stream));
    return backend->quantize_channels(&a->input, stream);
}

tv_status tv_norm_digits(const tv_backend *backend, const tv_norm_digits_args *a, void *stream)
{
    if (backend->joint.norm_digits)
        return backend->joint.norm_digits(a, stream);
    TV_TRY(backend->norm(&a->norm, stream));
    TV_TRY(backend->quantize_rows(&a->input, stream));
    return backend->quantize_rows(&a->digits, stream);
}

tv_status tv_moe_query(const tv_backend *backend, const tv_moe_query_args *a, void *stream)
{
    if (backend->joint.moe_query)
        return backend->joint.moe_query(a, stream);
    TV_TRY(backend->gemm(&a->query, stream));
    TV_TRY(backend->quantize_rows(&a->z, stream));
    TV_TRY(backend->gemm(&a->centroid, stream));
    return backend->moe_route(&a->route, stream);
}

tv_status tv_moe_place(const tv_backend *backend, const tv_moe_place_args *a, void *stream)
{
    if (backend->joint.moe_place)
        return backend->joint.moe_place(a, stream);
    TV_TRY(backend->moe_plan(&a->plan, stream));
    return backend->rows_gather(&a->gather, stream);
}

tv_status tv_moe_sum(const tv_backend *backend, const tv_moe_sum_args *a, void *stream)
{
    if (backend->joint.moe_sum)
        return backend->joint.moe_sum(a, stream);
    TV_TRY(backend->moe_combine(&a->combine, stream));
    return backend->quantize_rows(&a->rows, stream);
}

tv_status tv_moe_split(const tv_backend *backend, const tv_moe_split_args *a, void *stream)
{
    if (backend->joint.moe_split)
        return backend->joint.moe_split(a, stream);
    TV_TRY(backend->moe_combine_backward(&a->combine, stream));
    TV_TRY(backend->moe_route_backward(&a->route, stream));
    TV_TRY(backend->quantize_rows(&a->digits, stream));
    return backend->rows_gather(&a->gather, stream);
}

tv_status tv_moe_turn(const tv_backend *backend, const tv_moe_turn_args *a, void *stream)
{
    if (backend->joint.moe_turn)
        return backend->joint.moe_turn(a, stream);
    TV_TRY(backend->moe_activate_backward(&a->gradient, stream));
    return backend->moe_channels(&a->input, stream);
}

tv_status tv_moe_join(const tv_backend *backend, const tv_moe_join_args *a, void *stream)
{
    if (backend->joint.moe_join)
        return backend->joint.moe_join(a, stream);
    TV_TRY(backend->quantize_rows(&a->digits, stream));
    TV_TRY(backend->moe_combine(&a->combine, stream));
    return backend->norm_backward(&a->norm, stream);
}
