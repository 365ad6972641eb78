// Prints the fail points of base/fault.h, one a line: name, then the actions that it takes besides kill, stop and delay.
#include <stdio.h>

#include "base/fault.h"

int main(void)
{
    static const struct {
        const char *name;
        int actions;
    } points[] = {
#define LIST_POINT(id, name, actions, place) {name, actions},
        TV_FAULT_LIST(LIST_POINT)
#undef LIST_POINT
    };
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        printf("%s%s%s%s\n", points[i].name, points[i].actions & TV_FAULT_ERRNO ? " errno" : "",
               points[i].actions & TV_FAULT_FLIP ? " flip-bit" : "", points[i].actions & TV_FAULT_NAN ? " nan" : "");
    return 0;
}
