#include "train/requests.h"

#include <signal.h>
#include <stddef.h>

#include "train/trainer.h"

static volatile sig_atomic_t save_wanted, stop_wanted;

static void on_signal(int number)
{
    if (number == SIGUSR1) {
        save_wanted = 1;
        return;
    }
    if (number == SIGINT && stop_wanted) { // the second one: let the default action end the process
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
        return;
    }
    stop_wanted = 1;
}

void tv_requests_install(void)
{
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

uint64_t tv_requests_take(void)
{
    uint64_t flags = 0;
    if (save_wanted) {
        save_wanted = 0;
        flags |= TV_FLAG_SAVE;
    }
    if (stop_wanted)
        flags |= TV_FLAG_STOP;
    return flags;
}
