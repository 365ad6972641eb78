// sum32 over rows that a list names, channel by channel: out[i, c] = sum32(factor_k row_k[c], k < count of list i).
//
// A warp has a list and a run of channels, V of them a lane. Up to TV_FEW rows take a slot of the 32 each, and the slots that stay empty are +0,
// which changes no sum: no slot is ever -0. All warps of the block share a longer list: warp w has the slots w, w + 8, w + 16, w + 24.
#ifndef TV_KERNELS_ROW_SUMS_CUH
#define TV_KERNELS_ROW_SUMS_CUH

#include "kernels/cuda/vector_cuda.cuh"

#define TV_SUMS_WARPS 8
#define TV_SUMS_THREADS (TV_SUMS_WARPS * TV_WARP)
#define TV_FEW 8 // at most half as many as slots, and what one warp keeps in registers
#define TV_SLOTS 32

template <int V> struct tv_floats {
    float v[V];
};
template <int V> __device__ static inline tv_floats<V> tv_floats_load(const float *x)
{
    if constexpr (V == 4) {
        float4 four = *(const float4 *)x;
        return {{four.x, four.y, four.z, four.w}};
    } else if constexpr (V == 2) {
        float2 two = *(const float2 *)x;
        return {{two.x, two.y}};
    } else
        return {{*x}};
}

template <int V> __device__ static inline void tv_floats_store(float *x, const tv_floats<V> &value)
{
    if constexpr (V == 4)
        __stwb((float4 *)x, make_float4(value.v[0], value.v[1], value.v[2], value.v[3])); // one store, not four
    else if constexpr (V == 2)
        __stwb((float2 *)x, make_float2(value.v[0], value.v[1]));
    else
        *x = value.v[0];
}

template <int V>
__device__ static inline tv_floats<V> tv_floats_fma(float a, const tv_floats<V> &b, const tv_floats<V> &c)
{
    tv_floats<V> out;
#pragma unroll
    for (int i = 0; i < V; i++)
        out.v[i] = fmaf(a, b.v[i], c.v[i]);
    return out;
}

template <int V> __device__ static inline tv_floats<V> tv_floats_sum(const tv_floats<V> &a, const tv_floats<V> &b)
{
    tv_floats<V> out;
#pragma unroll
    for (int i = 0; i < V; i++)
        out.v[i] = a.v[i] + b.v[i];
    return out;
}

// Slots 0 .. 7, to which those above have been added.
template <int V> __device__ static inline tv_floats<V> tv_slots_join(const tv_floats<V> slot[TV_FEW])
{
    tv_floats<V> a = tv_floats_sum(tv_floats_sum(slot[0], slot[4]), tv_floats_sum(slot[2], slot[6]));
    tv_floats<V> b = tv_floats_sum(tv_floats_sum(slot[1], slot[5]), tv_floats_sum(slot[3], slot[7]));
    return tv_floats_sum(a, b);
}

// A list as a block keeps it.
typedef struct tv_list {
    int64_t first;
    int count;
} tv_list;

// N rows of a list, `first` + i `step`, each into its slot. Behind the list's end the last row's number stands in, so that no row waits for the
// one before it. LISTS: items and width; find(i) is list i; row(list, k, &factor) is its row k; out(i).
template <int V, int N, class LISTS>
__device__ static inline void tv_list_rows(const LISTS &lists, const tv_list &list, int64_t c, int first, int step,
                                           tv_floats<V> *slot)
{
    const float *row[N];
    float factor[N];
    tv_floats<V> value[N] = {};
#pragma unroll
    for (int i = 0; i < N; i++)
        row[i] = lists.row(list, min(first + i * step, list.count - 1), &factor[i]) + c;
#pragma unroll
    for (int i = 0; i < N; i++)
        if (first + i * step < list.count)
            value[i] = tv_floats_load<V>(row[i]);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (first + i * step < list.count)
            slot[i] = tv_floats_fma(factor[i], value[i], slot[i]);
}

template <int V, class LISTS>
__device__ static inline tv_floats<V> tv_list_few(const LISTS &lists, const tv_list &list, int64_t c)
{
    tv_floats<V> slot[TV_FEW] = {};
    if (list.count > 0)
        tv_list_rows<V, TV_FEW>(lists, list, c, 0, 1, slot);
    return tv_slots_join(slot);
}

// Slots `warp` + 8 i of a list that has rows, joined as far as they go.
template <int V, class LISTS>
__device__ static inline tv_floats<V> tv_list_share(const LISTS &lists, const tv_list &list, int64_t c, int warp)
{
    constexpr int own = TV_SLOTS / TV_SUMS_WARPS;
    tv_floats<V> slot[own] = {};
#pragma unroll 2
    for (int k = warp; k < list.count; k += TV_SLOTS)
        tv_list_rows<V, own>(lists, list, c, k, TV_SUMS_WARPS, slot);
    return tv_floats_sum(tv_floats_sum(slot[0], slot[2]), tv_floats_sum(slot[1], slot[3]));
}

template <int V, class LISTS>
__global__ static void __launch_bounds__(TV_SUMS_THREADS)
    tv_row_sums_kernel(const __grid_constant__ LISTS lists, unsigned runs)
{
    __shared__ tv_list list[TV_SUMS_WARPS];
    __shared__ float shares[TV_SUMS_WARPS][TV_WARP][V];
    int warp = threadIdx.x / TV_WARP, lane = tv_warp_lane();
    int64_t first = (int64_t)(blockIdx.x / runs) * TV_SUMS_WARPS;
    int64_t c = ((int64_t)(blockIdx.x % runs) * TV_WARP + lane) * V;
    bool here = c < lists.width;
    tv_list mine = {0, 0};
    if (first + warp < lists.items)
        mine = lists.find(first + warp);
    if (lane == 0)
        list[warp] = mine;
    if (first + warp < lists.items && mine.count <= TV_FEW && here)
        tv_floats_store(lists.out(first + warp) + c, tv_list_few<V>(lists, mine, c));
    __syncthreads();
    for (int i = 0; i < TV_SUMS_WARPS; i++) {
        if (list[i].count <= TV_FEW)
            continue;
        tv_floats<V> share = {};
        if (here)
            share = tv_list_share<V>(lists, list[i], c, warp);
#pragma unroll
        for (int j = 0; j < V; j++)
            shares[warp][lane][j] = share.v[j];
        __syncthreads();
        if (warp == 0 && here) {
            tv_floats<V> slot[TV_FEW];
#pragma unroll
            for (int w = 0; w < TV_SUMS_WARPS; w++)
#pragma unroll
                for (int j = 0; j < V; j++)
                    slot[w].v[j] = shares[w][lane][j];
            tv_floats_store(lists.out(first + i) + c, tv_slots_join(slot));
        }
        __syncthreads();
    }
}

// At least one item and one channel; V divides the width, and rows begin at multiples of V floats.
template <int V, class LISTS> static inline void tv_row_sums_start(const LISTS &lists, cudaStream_t stream)
{
    unsigned runs = tv_cuda_blocks(lists.width, TV_WARP * V);
    unsigned blocks = tv_cuda_blocks(lists.items, TV_SUMS_WARPS) * runs;
    tv_row_sums_kernel<V><<<blocks, TV_SUMS_THREADS, 0, stream>>>(lists, runs);
}

// As many channels a lane as the width fills.
template <class LISTS>
static inline void tv_row_sums(const LISTS &lists, std::initializer_list<const void *> arrays, cudaStream_t stream)
{
    bool aligned = tv_cuda_aligned(arrays);
    if (aligned && lists.width % 4 == 0 && lists.width > 2 * TV_WARP)
        tv_row_sums_start<4>(lists, stream);
    else if (aligned && lists.width % 2 == 0 && lists.width > TV_WARP)
        tv_row_sums_start<2>(lists, stream);
    else
        tv_row_sums_start<1>(lists, stream);
}

#endif
