// Which backends this build has, and which one a name means.
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/ref/ref_ops.h"
#ifdef TV_BACKEND_CPU
#include "kernels/cpu/cpu_backend.h"
#endif
#ifdef TV_BACKEND_CUDA
#include "kernels/cuda/cuda_ops.h"
#endif

#define MAX_BACKENDS 4

// Filled again at every call with the same pointers: two threads that do so at once write the same values.
const tv_backend *const *tv_backend_list(void)
{
    static const tv_backend *list[MAX_BACKENDS + 1];
    int count = 0;
    list[count++] = tv_backend_ref();
#ifdef TV_BACKEND_CPU
    list[count++] = tv_backend_cpu();
#endif
#ifdef TV_BACKEND_CUDA
    list[count++] = tv_backend_cuda();
#endif
    return list;
}

// The list goes from slow to fast, and only the GPU's backend may be unable to run here.
static const tv_backend *fastest(void)
{
    const tv_backend *best = NULL;
    for (const tv_backend *const *b = tv_backend_list(); *b; b++)
        if ((*b)->host_memory)
            best = *b;
#ifdef TV_BACKEND_CUDA
    if (usable_cuda())
        best = tv_backend_cuda();
#endif
    return best;
}

// "ref, cpu, cuda" of this build.
static void known_names(char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (const tv_backend *const *b = tv_backend_list(); *b && used < bytes; b++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", (*b)->name);
}

tv_status tv_backend_find(const char *name, const tv_backend **out)
{
    const tv_backend *const *list = tv_backend_list();
    *out = NULL;
    if (strcmp(name, "auto") == 0) {
        *out = fastest();
        return TV_OK;
    }
    for (; *list; list++)
        if (strcmp(name, (*list)->name) == 0) {
            *out = *list;
            return TV_OK;
        }
    char known[64];
    known_names(known, sizeof known);
    if (strcmp(name, "cuda") == 0)
        return TV_FAIL(TV_BACKEND,
                       "this build has no CUDA backend (CMake option TV_CUDA; it needs nvcc): use one of %s, or auto",
                       known);
    if (strcmp(name, "cpu") == 0)
        return TV_FAIL(TV_BACKEND,
                       "this build has no cpu backend (it is for x86-64; CMake option TV_CPU): use one of %s, or auto",
                       known);
    return TV_FAIL(TV_BACKEND, "there is no backend called '%s': use one of %s, or auto", name, known);
}

tv_status tv_decode_many(const tv_backend *backend, const tv_decode_args *list, int64_t count, void *stream)
{
    if (backend->decode_many)
        return backend->decode_many(list, count, stream);
    for (int64_t i = 0; i < count; i++)
        TV_TRY(backend->decode(&list[i], stream));
    return TV_OK;
}

tv_status tv_ballot_many(const tv_backend *backend, const tv_ballot_args *list, int64_t count, void *stream)
{
    if (backend->ballot_many)
        return backend->ballot_many(list, count, stream);
    for (int64_t i = 0; i < count; i++)
        TV_TRY(backend->ballot(&list[i], stream));
    return TV_OK;
}

tv_status tv_ballot_e_many(const tv_backend *backend, const tv_ballot_e_args *list, int64_t count, void *stream)
{
    if (backend->ballot_e_many)
        return backend->ballot_e_many(list, count, stream);
    for (int64_t i = 0; i < count; i++)
        TV_TRY(backend->ballot_e(&list[i], stream));
    return TV_OK;
}
