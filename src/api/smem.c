/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common functions. smem_init() has nothing to do: every part comes up with its first user and
 * goes with its last, so smem_uninit() only ends the users: the services, and the references on
 * stores that smem_create_config_store() took.
 */
#include "smem.h"

#include "api/export.h"
#include "api/service.h"
#include "core/hosted.h"
#include "util/err.h"
#include "util/log.h"

SMEM_API int32_t smem_init(uint32_t flags)
{
	if (flags != 0)
		LOG_DEBUG("smem", "smem_init: flags 0x%x ignored", flags);
	return SMEM_OK;
}

SMEM_API int32_t smem_create_config_store(const char *storeUrl)
{
	API_SCOPE(s);
	return err_leave(&s, storeUrl ? hosted_add(storeUrl)
				      : smem_err(SMEM_INVALID_PARAM, "storeUrl is NULL"));
}

SMEM_API void smem_uninit(void)
{
	service_uninit_all();
	hosted_close();
}

SMEM_API int32_t smem_set_extern_logger(void (*func)(int level, const char *msg))
{
	API_SCOPE(s);
	if (!func)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "func is NULL"));
	log_set_sink(func);
	return err_leave(&s, SMEM_OK);
}

SMEM_API int32_t smem_set_log_level(int level)
{
	API_SCOPE(s);
	if (level < LOG_LEVEL_DEBUG || level > LOG_LEVEL_ERROR)
		return err_leave(&s, smem_err(SMEM_INVALID_PARAM, "level %d, want 0..3", level));
	log_set_level(level);
	return err_leave(&s, SMEM_OK);
}

SMEM_API const char *smem_get_last_err_msg(void)
{
	return err_last();
}

SMEM_API const char *smem_get_and_clear_last_err_msg(void)
{
	return err_last_clear();
}

SMEM_API int32_t smem_get_last_err_code(void)
{
	return err_last_code();
}
