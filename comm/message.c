#include "comm/message.h"

#include <stdarg.h>
#include <stdio.h>

void tv_message_add(tv_message *message, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(message->bytes + message->used, message->room - message->used, format, args);
    va_end(args);
    size_t space = message->room - 1 - message->used;
    if (n > 0)
        message->used += (size_t)n < space ? (size_t)n : space;
}
