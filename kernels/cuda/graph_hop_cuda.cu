// A hop of the graph in one launch. A warp has 16 nodes: each edge's message is worked out where it is wanted, from the source's row, and
// goes on into the sums, their update, the residual and the low-rank term without leaving the registers. That repeats the product of a source
// for each of its edges, which costs less than messages that travel through memory. Blocks behind those of the nodes go through the other
// sources: for their int8 form, when a backward wants it, and for faults.
#include "kernels/cuda/answer_rows.cuh"
#include "kernels/cuda/cuda_ops.h"

#define WARPS (TV_QR_THREADS / TV_WARP)
#define BLOCK_ROWS (WARPS * TV_QR_ROWS)
#define EDGES 4 // of a node at a time: one a lane of its four

template <bool PACKED> struct hop_shared {
    static constexpr int STEPS = PACKED ? TV_AR_STEPS : TV_QR_STEPS;
    tv_qr_layer<STEPS> message, down; // of nodes
    tv_qr_layer<TV_QR_STEPS> update, up;
    tv_ar_table table;
    float hop_scale[TV_GRAPH_RANK_MAX];
    __align__(16) uint8_t stage[WARPS][PACKED ? TV_QR_ROWS * TV_AR_PITCH : 16];
};

// The lists of a lane's two nodes.
typedef struct hop_lists {
    int32_t first[2], count[2];
} hop_lists;

// Four edges of each list, one a lane of its four: the source's answer or row, -1 behind the last edge.
typedef struct hop_edges {
    int32_t index[2];
    int32_t attr[2];
} hop_edges;

// This warp's rows of those from `from` on, -1 behind the last one.
__device__ static inline void find_rows(int64_t block, int64_t from, int64_t count, int64_t row[2])
{
    int64_t first = from + block * BLOCK_ROWS + threadIdx.x / TV_WARP * TV_QR_ROWS + tv_qr_group();
    row[0] = first < count ? first : -1;
    row[1] = first + 8 < count ? first + 8 : -1;
}

__device__ static inline int32_t answer_of(const tv_graph_hop_args &a, int64_t row)
{
    return row >= 0 && a.from ? a.from[row] : (int32_t)row;
}

__device__ static inline hop_lists find_lists(const tv_graph_hop_args &a, const int64_t row[2])
{
    hop_lists lists;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        lists.first[h] = row[h] >= 0 ? a.start[row[h]] : 0;
        lists.count[h] = row[h] >= 0 ? a.start[row[h] + 1] - lists.first[h] : 0;
    }
    return lists;
}

// The longest list of the warp.
__device__ static inline int longest(const hop_lists &lists)
{
    return (int)__reduce_max_sync(0xFFFFFFFFu, (unsigned)max(lists.count[0], lists.count[1]));
}

// Edges `at` .. `at` + 3, whose sources are still nodes: a step of follow_edges away from answers.
__device__ static inline hop_edges read_edges(const tv_graph_hop_args &a, const hop_lists &lists, int at)
{
    hop_edges edges;
    int e = at + tv_qr_quarter();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t place = (int64_t)lists.first[h] + e;
        edges.index[h] = e < lists.count[h] ? a.source[place] : -1;
        edges.attr[h] = e < lists.count[h] ? a.attr[place] : 0;
    }
    return edges;
}

__device__ static inline void follow_edges(const tv_graph_hop_args &a, hop_edges *edges)
{
    if (!a.bytes || !a.from)
        return;
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (edges->index[h] >= 0)
            edges->index[h] = a.from[edges->index[h]];
}

// sum = fma(attr, lin(layer, x), sum) for N edges of each node, in order. A tile's weights are read once for them.
template <int STEPS, int N>
__device__ static inline void add_messages(const tv_qr_operand<STEPS> x[N], const float attr[N][2],
                                           const tv_qr_layer<STEPS> &layer, tv_qr_rows *sum)
{
    constexpr float factor = STEPS == TV_AR_STEPS ? TV_AR_FACTOR : 1.0f;
#pragma unroll
    for (int j = 0; j < TV_QR_TILES; j++) {
        int32_t acc[N][4];
        tv_qr_product<STEPS, N>(x, layer, j, acc);
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float m = tv_qr_float(acc[i][k], factor) * x[i].scale[k / 2];
                sum->v[k / 2][j][k % 2] = fmaf(attr[i][k / 2], m, sum->v[k / 2][j][k % 2]);
            }
    }
}

// ---- messages from answers ---------------------------------------------------------------------------------------------

// Four edges' answers of a lane's two rows.
typedef struct hop_batch {
    hop_edges edges;
    tv_ar_words words[EDGES][2];
} hop_batch;

// Edge i of the four of row g + 8 h.
__device__ static inline int32_t index_of(const hop_edges &edges, int i, int h)
{
    return __shfl_sync(0xFFFFFFFFu, edges.index[h], tv_qr_lane_of(i));
}
__device__ static inline float attr_of(const hop_edges &edges, int i, int h)
{
    return (float)__shfl_sync(0xFFFFFFFFu, edges.attr[h], tv_qr_lane_of(i));
}

__device__ static inline void read_batch(const tv_ar_form &form, const hop_edges &edges, hop_batch *batch)
{
    batch->edges = edges;
#pragma unroll
    for (int i = 0; i < EDGES; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            batch->words[i][h] = tv_ar_load(form, index_of(edges, i, h));
}

// Answers are on their way while those before them are worked out, and their numbers one turn earlier. edges: the first eight.
template <bool WHOLE>
__device__ static void sum_messages(const tv_graph_hop_args &a, const hop_shared<true> &shared, const hop_lists &lists,
                                    const hop_edges edges[2], tv_qr_rows *sum)
{
    tv_ar_form form = tv_ar_form_of(a.bytes, (int)a.cols, a.base, a.mantissa_bits);
    hop_batch batch, next;
    hop_edges later = edges[1];
    int most = longest(lists);
    float unit = tv_exp2i(a.message.exponent);
    read_batch(form, edges[0], &batch);
    for (int at = 0; at < most; at += EDGES) {
        read_batch(form, later, &next);
        later = read_edges(a, lists, at + 2 * EDGES);
        follow_edges(a, &later);
        tv_qr_operand<TV_AR_STEPS> x[EDGES];
        float attr[EDGES][2];
#pragma unroll
        for (int i = 0; i < EDGES; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const tv_ar_words &words = batch.words[i][h];
                int code = tv_ar_code(form, index_of(batch.edges, i, h), words);
                tv_ar_operand_row(shared.table, code, words.packed & form.mask, h, &x[i]);
                x[i].scale[h] = x[i].scale[h] * unit;
                attr[i][h] = attr_of(batch.edges, i, h);
            }
        add_messages<TV_AR_STEPS, EDGES>(x, attr, shared.message, sum);
        batch = next;
    }
}

// ---- messages from floats ------------------------------------------------------------------------------------------------

template <bool WHOLE>
__device__ static void sum_messages(const tv_graph_hop_args &a, const hop_shared<false> &shared, const hop_lists &lists,
                                    const hop_edges first[2], tv_qr_rows *sum)
{
    hop_edges edges = first[0], later = first[1];
    int most = longest(lists);
    float unit = tv_exp2i(a.message.exponent);
    for (int at = 0; at < most; at += EDGES) {
        for (int i = 0; i < EDGES && at + i < most; i++) {
            int64_t from[2];
            float attr[1][2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                from[h] = index_of(edges, i, h);
                attr[0][h] = attr_of(edges, i, h);
            }
            tv_qr_operand<TV_QR_STEPS> x = tv_qr_quantize(tv_qr_load<WHOLE>(a.x, from, (int)a.cols), NULL);
            x.scale[0] = x.scale[0] * unit, x.scale[1] = x.scale[1] * unit;
            add_messages<TV_QR_STEPS, 1>(&x, attr, shared.message, sum);
        }
        edges = later;
        later = read_edges(a, lists, at + 2 * EDGES);
    }
}

// ---- nodes before the hop --------------------------------------------------------------------------------------------------

// Values and operand of this warp's rows, and their int8 form for a backward. Raises faults.
template <bool WHOLE>
__device__ static inline tv_qr_rows own_rows(const tv_graph_hop_args &a, hop_shared<true> *shared, const int64_t row[2],
                                             tv_qr_operand<TV_AR_STEPS> *x)
{
    tv_ar_form form = tv_ar_form_of(a.bytes, (int)a.cols, a.base, a.mantissa_bits);
    int32_t index[2] = {answer_of(a, row[0]), answer_of(a, row[1])};
    int code[2];
    uint32_t packed[2];
    tv_ar_read(form, index, code, packed, a.fault);
    tv_ar_operand_row(shared->table, code[0], packed[0], 0, x);
    tv_ar_operand_row(shared->table, code[1], packed[1], 1, x);
    tv_qr_rows rows = tv_ar_values(shared->table, code, packed, (int)a.cols, shared->stage[threadIdx.x / TV_WARP]);
    if (a.q)
        tv_qr_store_operand<WHOLE>(tv_qr_quantize(rows, a.fault), row, (int)a.cols, a.q, a.scale);
    return rows;
}

template <bool WHOLE>
__device__ static inline tv_qr_rows own_rows(const tv_graph_hop_args &a, hop_shared<false> *, const int64_t row[2],
                                             tv_qr_operand<TV_QR_STEPS> *x)
{
    tv_qr_rows rows = tv_qr_load<WHOLE>(a.x, row, (int)a.cols);
    *x = tv_qr_quantize(rows, a.fault);
    if (a.q)
        tv_qr_store_operand<WHOLE>(*x, row, (int)a.cols, a.q, a.scale);
    return rows;
}

// ---- nodes behind the hop --------------------------------------------------------------------------------------------------

// Channels that a layer does not have.
__device__ static inline void clear_behind(tv_qr_rows *x, int cols)
{
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int i = 0; i < 2 * TV_QR_TILES; i++)
            if (tv_qr_channel(i / 2) + i % 2 >= cols)
                x->v[h][i / 2][i % 2] = 0.0f;
}

// y = y + lin(layer, x)
__device__ static inline void add_layer(const tv_qr_operand<TV_QR_STEPS> &x, const tv_qr_layer<TV_QR_STEPS> &layer,
                                        int exponent, tv_qr_rows *y)
{
    float scale[2] = {x.scale[0] * tv_exp2i(exponent), x.scale[1] * tv_exp2i(exponent)};
#pragma unroll
    for (int j = 0; j < TV_QR_TILES; j++) {
        int32_t acc[1][4];
        tv_qr_product<TV_QR_STEPS, 1>(&x, layer, j, acc);
#pragma unroll
        for (int k = 0; k < 4; k++)
            y->v[k / 2][j][k % 2] = y->v[k / 2][j][k % 2] + tv_qr_float(acc[0][k], 1.0f) * scale[k / 2];
    }
}

// lin(lora_down, x) hop_scale
template <int STEPS>
__device__ static inline tv_qr_rows low_rank(const tv_graph_hop_args &a, const tv_qr_operand<STEPS> &x,
                                             const tv_qr_layer<STEPS> &layer, const float *hop_scale)
{
    constexpr float factor = STEPS == TV_AR_STEPS ? TV_AR_FACTOR : 1.0f;
    float unit = tv_exp2i(a.lora_down.exponent), scale[2] = {x.scale[0] * unit, x.scale[1] * unit};
    tv_qr_rows l = {};
#pragma unroll
    for (int j = 0; j < TV_QR_TILES; j++)
        if (8 * j < a.rank) {
            int32_t acc[1][4];
            tv_qr_product<STEPS, 1>(&x, layer, j, acc);
#pragma unroll
            for (int k = 0; k < 4; k++)
                l.v[k / 2][j][k % 2] =
                    (tv_qr_float(acc[0][k], factor) * scale[k / 2]) * hop_scale[tv_qr_channel(j) + k % 2];
        }
    clear_behind(&l, (int)a.rank);
    return l;
}

template <bool PACKED, bool WHOLE>
__device__ static void hop_nodes(const tv_graph_hop_args &a, hop_shared<PACKED> *shared, const int64_t row[2],
                                 const hop_lists &lists, const hop_edges edges[2])
{
    int cols = (int)a.cols;
    tv_qr_rows sum = {};
    tv_qr_operand<hop_shared<PACKED>::STEPS> x;
    sum_messages<WHOLE>(a, *shared, lists, edges, &sum);
    if (cols < TV_QR_CHANNELS)
        clear_behind(&sum, cols);
    tv_qr_operand<TV_QR_STEPS> q = tv_qr_quantize(sum, a.fault);
    if (a.q)
        tv_qr_store_operand<WHOLE>(q, row, cols, a.qa, a.scale_a);
    tv_qr_rows y = own_rows<WHOLE>(a, shared, row, &x);
    add_layer(q, shared->update, a.update.exponent, &y);
    if (a.rank > 0) {
        q = tv_qr_quantize(low_rank(a, x, shared->down, shared->hop_scale), a.fault);
        if (a.q)
            tv_qr_store_operand<WHOLE>(q, row, (int)a.rank, a.ql, a.scale_l);
        add_layer(q, shared->up, a.lora_up.exponent, &y);
    }
    tv_qr_store<WHOLE>(a.y, row, cols, y);
}

template <bool WHOLE>
__device__ static inline void load_input_layer(tv_qr_layer<TV_AR_STEPS> *layer, const int8_t *w8, int n, int k)
{
    tv_ar_load_layer<WHOLE>(layer, w8, n, k);
}
template <bool WHOLE>
__device__ static inline void load_input_layer(tv_qr_layer<TV_QR_STEPS> *layer, const int8_t *w8, int n, int k)
{
    tv_qr_load_layer<WHOLE>(layer, w8, n, k);
}

// With rank 0 nothing is read of the low-rank layers.
template <bool PACKED, bool WHOLE>
__device__ static inline void load_layers(const tv_graph_hop_args &a, hop_shared<PACKED> *shared)
{
    int cols = (int)a.cols, rank = (int)a.rank;
    load_input_layer<WHOLE>(&shared->message, a.message.w8, cols, cols);
    tv_qr_load_layer<WHOLE>(&shared->update, a.update.w8, cols, cols);
    load_input_layer<WHOLE>(&shared->down, a.lora_down.w8, rank, cols);
    tv_qr_load_layer<WHOLE>(&shared->up, a.lora_up.w8, cols, rank);
    if (threadIdx.x < TV_GRAPH_RANK_MAX)
        shared->hop_scale[threadIdx.x] =
            (int)threadIdx.x < rank ? (float)a.hop_scale.w8[threadIdx.x] * tv_exp2i(a.hop_scale.exponent) : 0.0f;
}

template <bool PACKED, bool WHOLE>
__global__ static void __launch_bounds__(TV_QR_THREADS, 2)
    hop_kernel(const __grid_constant__ tv_graph_hop_args a, unsigned node_blocks)
{
    __shared__ hop_shared<PACKED> shared;
    int64_t row[2];
    if (PACKED)
        tv_ar_load_table(&shared.table, a.base, a.mantissa_bits);
    if (blockIdx.x >= node_blocks) {
        tv_qr_operand<hop_shared<PACKED>::STEPS> unused;
        __syncthreads();
        find_rows(blockIdx.x - node_blocks, a.nodes, a.sources, row);
        own_rows<WHOLE>(a, &shared, row, &unused);
        return;
    }
    find_rows(blockIdx.x, 0, a.nodes, row);
    hop_lists lists = find_lists(a, row);
    load_layers<PACKED, WHOLE>(a, &shared);
    hop_edges edges[2] = {read_edges(a, lists, 0), read_edges(a, lists, EDGES)};
    follow_edges(a, &edges[0]);
    follow_edges(a, &edges[1]);
    __syncthreads();
    hop_nodes<PACKED, WHOLE>(a, &shared, row, lists, edges);
}

template <bool PACKED> static void hop_start(const tv_graph_hop_args *a, cudaStream_t stream)
{
    unsigned nodes = tv_cuda_blocks(a->nodes, BLOCK_ROWS);
    unsigned blocks = nodes + tv_cuda_blocks(a->sources - a->nodes, BLOCK_ROWS);
    bool whole = tv_qr_whole(a->cols | a->rank, {a->x, a->y, a->q, a->qa, a->ql, a->message.w8, a->update.w8,
                                                 a->lora_down.w8, a->lora_up.w8});
    if (whole)
        hop_kernel<PACKED, true><<<blocks, TV_QR_THREADS, 0, stream>>>(*a, nodes);
    else
        hop_kernel<PACKED, false><<<blocks, TV_QR_THREADS, 0, stream>>>(*a, nodes);
}

extern "C" tv_status graph_hop_cuda(const tv_graph_hop_args *a, void *stream)
{
    if (!a->sources || !a->cols)
        return TV_OK;
    if (a->cols > TV_QR_CHANNELS || a->rank > TV_GRAPH_RANK_MAX)
        return TV_FAIL(TV_BACKEND, "a hop of %lld channels and rank %lld: the kernel holds at most %d and %d",
                       (long long)a->cols, (long long)a->rank, TV_QR_CHANNELS, TV_GRAPH_RANK_MAX);
    if (a->bytes)
        hop_start<true>(a, tv_cuda_stream(stream));
    else
        hop_start<false>(a, tv_cuda_stream(stream));
    TV_CUDA_LAUNCHED("graph_hop");
}
