// Becomes the command in its arguments where a GPU can be used; elsewhere says why not and ends with 77, CTest's mark of a skipped test. Asking takes
// hundredths of a second where a launcher and its ranks take one or two to find out the same.
#include <stdio.h>
#include <unistd.h>

#include "kernels/kernels.h"

int main(int count, char **arguments)
{
    const tv_backend *backend;
    if (count < 2) {
        fprintf(stderr, "usage: gpu_gate COMMAND [ARGUMENT]...\n");
        return 2;
    }
    if (tv_backend_find("auto", &backend) == TV_OK && !backend->host_memory) {
        execvp(arguments[1], arguments + 1);
        perror(arguments[1]);
        return 1;
    }
    if (tv_backend_find("cuda", &backend) == TV_OK && backend->open(0, 1, 1) == TV_OK) {
        fprintf(stderr, "the cuda backend opens, yet is not the one that can run here\n");
        return 1;
    }
    printf("skipped: %s\n", tv_status_message());
    return 77;
}
