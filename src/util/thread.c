/* SPDX-License-Identifier: Apache-2.0 */
#include "util/thread.h"

#include <signal.h>

#include "util/err.h"

int32_t thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	pthread_t tid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int err = pthread_create(&tid, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err != 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, err, "cannot start thread %s", name);
	pthread_setname_np(tid, name);
	*ret = tid;
	return SMEM_OK;
}
