/*
 * The least that a server can do: writes the same bytes to every connection, all of them every so many
 * milliseconds. What it costs is what the kernel takes for it.
 *
 *   floor PORT FILE INTERVAL_MS
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_VIEWERS 8192

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    signal(SIGPIPE, SIG_IGN);
    FILE *file = fopen(argv[2], "rb");
    if (file == NULL) return 1;
    static char bytes[4 << 20];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    double interval_ms = atof(argv[3]);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) return 1;
    if (listen(listener, 1024) < 0) return 1;

    static int viewers[MAX_VIEWERS];
    int count = 0;
    double next_ms = now_ms();
    for (;;) {
        struct pollfd waiting = {.fd = listener, .events = POLLIN};
        double wait_ms = next_ms - now_ms();
        if (wait_ms > 0 && poll(&waiting, 1, (int)wait_ms + 1) > 0) {
            int viewer = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (viewer >= 0 && count < MAX_VIEWERS) viewers[count++] = viewer;
            continue;
        }
        next_ms += interval_ms;
        for (int i = 0; i < count; i++) {
            if (write(viewers[i], bytes, size) >= 0 || errno == EAGAIN) continue;
            close(viewers[i]);
            viewers[i--] = viewers[--count];
        }
    }
}
