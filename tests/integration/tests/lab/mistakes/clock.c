// A clock that is wrong by MILLRACE_TEST_SKEW seconds, for programs that find this library before the C library's.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
	const char *skew = getenv("MILLRACE_TEST_SKEW");
	int result = (int)syscall(SYS_clock_gettime, clock, now);

	if (result == 0 && skew && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += atol(skew);
	return result;
}
