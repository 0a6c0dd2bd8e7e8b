/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfabric is loaded when the first peer needs it, not linked: the libraries behind it initialise
 * when they are loaded, and that of one provider (psm2) measures the clock for a fifth of a second
 * there, before main(), in every process. Everything but these five entry points is reached through
 * tables that libfabric hands out. It stays loaded: providers leave threads and thread-specific
 * keys behind.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <rdma/fabric.h>
#include <rdma/fi_errno.h>
#include <string.h>

#include "util/log.h"

#define OFI_SONAME "libfabric.so.1"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;
static struct {
	__typeof__(fi_getinfo) *getinfo;
	__typeof__(fi_freeinfo) *freeinfo;
	__typeof__(fi_dupinfo) *dupinfo;
	__typeof__(fi_fabric) *fabric;
	__typeof__(fi_strerror) *strerror;
} lib;

static bool find(void *handle, const char *name, void *slot)
{
	void *at = dlsym(handle, name);

	if (!at)
		LOG_WARN("ofi", "%s has no %s", OFI_SONAME, name);
	memcpy(slot, &at, sizeof(at));
	return at != NULL;
}

static void load(void)
{
	void *handle = dlopen(OFI_SONAME, RTLD_NOW | RTLD_LOCAL);

	if (!handle) {
		LOG_WARN("ofi", "peers on other hosts cannot be reached: %s", dlerror());
		return;
	}
	loaded = find(handle, "fi_getinfo", &lib.getinfo) &&
		 find(handle, "fi_freeinfo", &lib.freeinfo) &&
		 find(handle, "fi_dupinfo", &lib.dupinfo) &&
		 find(handle, "fi_fabric", &lib.fabric) &&
		 find(handle, "fi_strerror", &lib.strerror);
}

static bool have(void)
{
	pthread_once(&once, load);
	return loaded;
}

int fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags,
	       const struct fi_info *hints, struct fi_info **info)
{
	return have() ? lib.getinfo(version, node, service, flags, hints, info) : -FI_ENOSYS;
}

void fi_freeinfo(struct fi_info *info)
{
	if (have())
		lib.freeinfo(info);
}

struct fi_info *fi_dupinfo(const struct fi_info *info)
{
	return have() ? lib.dupinfo(info) : NULL;
}

int fi_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context)
{
	return have() ? lib.fabric(attr, fabric, context) : -FI_ENOSYS;
}

const char *fi_strerror(int errnum)
{
	return have() ? lib.strerror(errnum) : "libfabric is not available";
}
