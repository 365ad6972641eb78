// Embedding, its one-hot vote, and the trigram sequencer.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/vector_cuda.cuh"

#define THREADS 256

__device__ static inline int64_t element_index(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

__global__ static void embed_kernel(tv_embed_args a)
{
    int64_t i = element_index();
    if (i >= a.tokens * a.width)
        return;
    int64_t t = i / a.width, c = i % a.width;
    a.x[i] = (float)a.w8[a.ids[t] * a.width + c] * tv_exp2i(a.exponent);
}

// A warp a token, 4 channels a lane.
__global__ static void embed_quads_kernel(tv_embed_args a)
{
    int64_t t = tv_warp_row(), quads = a.width / TV_QUAD;
    if (t >= a.tokens)
        return;
    int64_t id = a.ids[t];
    for (int64_t i = tv_warp_lane(); i < quads; i += TV_WARP)
        ((float4 *)a.x)[t * quads + i] = tv_scale4(tv_word_floats(tv_word(a.w8, id * quads + i)), tv_exp2i(a.exponent));
}

extern "C" tv_status embed_cuda(const tv_embed_args *a, void *stream)
{
    if (!a->tokens || !a->width)
        return TV_OK;
    if (a->width % TV_QUAD == 0 && tv_cuda_aligned({a->w8, a->x}))
        embed_quads_kernel<<<tv_cuda_blocks(a->tokens, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                             tv_cuda_stream(stream)>>>(*a);
    else
        embed_kernel<<<tv_cuda_blocks(a->tokens * a->width, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("embed");
}

// A block a channel. Sums by table row in shared memory with integer atomics (exact in any order): sum[V], sumsq[V].
__global__ static void embed_vote_kernel(tv_embed_vote_args a)
{
    extern __shared__ int32_t bins[];
    int32_t *sum = bins, *sumsq = bins + a.table;
    int64_t c = blockIdx.x;
    for (int64_t v = threadIdx.x; v < 2 * a.table; v += THREADS)
        bins[v] = 0;
    __syncthreads();
    for (int64_t t = threadIdx.x; t < a.tokens; t += THREADS) {
        int g = a.gt[c * a.tokens + t];
        if (g) {
            atomicAdd(sum + a.ids[t], g);
            atomicAdd(sumsq + a.ids[t], g * g);
        }
    }
    __syncthreads();
    for (int64_t v = threadIdx.x; v < a.table; v += THREADS) {
        int64_t element = v * a.width + c;
        float root = sqrtf((float)sumsq[v]);
        int vote;
        if (a.rule.levels > 1)
            vote = tv_vote_level((float)sum[v], root, a.rule.levels,
                                 tv_rng16(tv_vote_level_key(&a.rule), (uint64_t)element));
        else
            vote = fabsf((float)sum[v]) > a.rule.tau * root ? tv_sign(sum[v]) : 0;
        if (vote)
            tv_vote_add(a.votes, a.rule.vote_bits, element, vote);
    }
}

extern "C" tv_status embed_vote_cuda(const tv_embed_vote_args *a, void *stream)
{
    size_t bytes = (size_t)a->table * 2 * sizeof(int32_t);
    if (!a->tokens || !a->width || !a->table)
        return TV_OK;
    if (bytes > 48 * 1024)
        return TV_FAIL(TV_BACKEND, "embedding table of %lld rows: the vote kernel holds at most 6144",
                       (long long)a->table);
    embed_vote_kernel<<<(unsigned)a->width, THREADS, bytes, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("embed_vote");
}

__global__ static void trigram_kernel(tv_trigram_args a)
{
    int64_t i = element_index(), wide = 3 * a.channels;
    if (i >= a.tokens * wide)
        return;
    int64_t t = i / wide, c = i % wide, back = 2 - c / a.channels;
    a.out[i] = t % a.context >= back ? a.in[(t - back) * a.channels + c % a.channels] : 0.0f;
}

extern "C" tv_status trigram_cuda(const tv_trigram_args *a, void *stream)
{
    if (!a->tokens || !a->channels || !a->context)
        return TV_OK;
    trigram_kernel<<<tv_cuda_blocks(a->tokens * 3 * a->channels, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("trigram");
}

__global__ static void trigram_backward_kernel(tv_trigram_args a)
{
    int64_t i = element_index(), channels = a.channels;
    if (i >= a.tokens * channels)
        return;
    int64_t t = i / channels, c = i % channels, left = a.context - 1 - t % a.context;
    const float *dy = a.in + t * 3 * channels;
    float own = dy[2 * channels + c];
    float next = left >= 1 ? dy[3 * channels + channels + c] : 0.0f;
    float second = left >= 2 ? dy[6 * channels + c] : 0.0f;
    a.out[i] = a.out[i] + ((own + next) + second);
}

// A warp a token, 4 channels a lane.
__global__ static void trigram_backward_quads_kernel(tv_trigram_args a)
{
    int64_t t = tv_warp_row(), quads = a.channels / TV_QUAD, left = a.context - 1 - t % a.context;
    if (t >= a.tokens)
        return;
    for (int64_t i = tv_warp_lane(); i < quads; i += TV_WARP) {
        float4 own = tv_quad(a.in, (t * 3 + 2) * quads + i);
        float4 next = left >= 1 ? tv_quad(a.in, (t * 3 + 4) * quads + i) : tv_quad_zero();
        float4 second = left >= 2 ? tv_quad(a.in, (t * 3 + 6) * quads + i) : tv_quad_zero();
        float4 *dx = (float4 *)a.out + t * quads + i, old = *dx;
        *dx = tv_sum4(old, tv_sum4(tv_sum4(own, next), second));
    }
}

extern "C" tv_status trigram_backward_cuda(const tv_trigram_args *a, void *stream)
{
    if (!a->tokens || !a->channels || !a->context)
        return TV_OK;
    if (a->channels % TV_QUAD == 0 && tv_cuda_aligned({a->in, a->out}))
        trigram_backward_quads_kernel<<<tv_cuda_blocks(a->tokens, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                                        tv_cuda_stream(stream)>>>(*a);
    else
        trigram_backward_kernel<<<tv_cuda_blocks(a->tokens * a->channels, THREADS), THREADS, 0,
                                  tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("trigram_backward");
}
