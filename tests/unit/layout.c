/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts and values that callers in other languages rely on; checked when this is compiled. */
#include "smem.h"
#include "smem_bm.h"
#include "smem_shm.h"
#include "smem_trans.h"

#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)
#define SIZE(type, size)	_Static_assert(sizeof(type) == (size), "size of " #type)
#define VALUE(name, value)	_Static_assert((name) == (value), #name)

SIZE(smem_bm_config_t, 24);
AT(smem_bm_config_t, initTimeout, 0);
AT(smem_bm_config_t, createTimeout, 4);
AT(smem_bm_config_t, controlOperationTimeout, 8);
AT(smem_bm_config_t, startConfigStore, 12);
AT(smem_bm_config_t, startConfigStoreOnly, 13);
AT(smem_bm_config_t, dynamicWorldSize, 14);
AT(smem_bm_config_t, unifiedAddressSpace, 15);
AT(smem_bm_config_t, autoRanking, 16);
AT(smem_bm_config_t, rankId, 18);
AT(smem_bm_config_t, flags, 20);

SIZE(smem_copy_params, 24);
AT(smem_copy_params, src, 0);
AT(smem_copy_params, dest, 8);
AT(smem_copy_params, count, 16);

SIZE(smem_copy_2d_params, 48);
AT(smem_copy_2d_params, src, 0);
AT(smem_copy_2d_params, spitch, 8);
AT(smem_copy_2d_params, dest, 16);
AT(smem_copy_2d_params, dpitch, 24);
AT(smem_copy_2d_params, width, 32);
AT(smem_copy_2d_params, height, 40);

SIZE(smem_shm_config_t, 20);
AT(smem_shm_config_t, shmInitTimeout, 0);
AT(smem_shm_config_t, shmCreateTimeout, 4);
AT(smem_shm_config_t, controlOperationTimeout, 8);
AT(smem_shm_config_t, startConfigStore, 12);
AT(smem_shm_config_t, flags, 16);

SIZE(smem_trans_config_t, 16);
AT(smem_trans_config_t, role, 0);
AT(smem_trans_config_t, initTimeout, 4);
AT(smem_trans_config_t, deviceId, 8);
AT(smem_trans_config_t, flags, 12);

SIZE(enum smem_error, 4);
SIZE(smem_bm_data_op_type, 4);
SIZE(smem_bm_copy_type, 4);
SIZE(smem_bm_mem_type, 4);
SIZE(smem_shm_data_op_type, 4);
SIZE(smem_trans_role_t, 4);
SIZE(smem_bm_t, sizeof(void *));
SIZE(smem_shm_t, sizeof(void *));
SIZE(smem_trans_t, sizeof(void *));

VALUE(SMEM_OK, 0);
VALUE(SMEM_ERROR, -1);
VALUE(SMEM_INVALID_PARAM, -2000);
VALUE(SMEM_MALLOC_FAILED, -2001);
VALUE(SMEM_NEW_OBJECT_FAILED, -2002);
VALUE(SMEM_NOT_STARTED, -2003);
VALUE(SMEM_TIMEOUT, -2004);
VALUE(SMEM_REPEAT_CALL, -2005);
VALUE(SMEM_DUPLICATED_OBJECT, -2006);
VALUE(SMEM_OBJECT_NOT_EXISTS, -2007);
VALUE(SMEM_NOT_INITIALIZED, -2008);
VALUE(SMEM_RESOURCE_IN_USE, -2009);
VALUE(SMEM_PEER_LOST, -2020);
VALUE(SMEM_UNREACHABLE, -2021);
VALUE(SMEM_STALE, -2022);
VALUE(SMEM_NOT_SUPPORTED, -2023);
VALUE(SMEM_IO, -2024);
VALUE(SMEM_SECURITY, -2025);

VALUE(SMEM_BM_TIMEOUT_MAX, UINT32_MAX);
VALUE(SMEM_SHM_TIMEOUT_MAX, UINT32_MAX);
VALUE(ASYNC_COPY_FLAG, 1u);
VALUE(COPY_EXTEND_FLAG, 2u);
VALUE(SMEMB_DATA_OP_SDMA, 1);
VALUE(SMEMB_DATA_OP_ROCE, 2);
VALUE(SMEMB_DATA_OP_HOST_RDMA, 2);
VALUE(SMEMB_DATA_OP_HOST_TCP, 4);
VALUE(SMEMB_DATA_OP_DEVICE_RDMA, 8);
VALUE(SMEMB_DATA_OP_HOST_URMA, 16);
VALUE(SMEMB_COPY_L2G, 0);
VALUE(SMEMB_COPY_G2L, 1);
VALUE(SMEMB_COPY_G2H, 2);
VALUE(SMEMB_COPY_H2G, 3);
VALUE(SMEMB_COPY_L2GH, 4);
VALUE(SMEMB_COPY_GH2L, 5);
VALUE(SMEMB_COPY_GH2H, 6);
VALUE(SMEMB_COPY_H2GH, 7);
VALUE(SMEMB_COPY_G2G, 8);
VALUE(SMEMB_COPY_AUTO, 9);
VALUE(SMEMB_COPY_BUTT, 10);
VALUE(SMEM_MEM_TYPE_LOCAL_DEVICE, 0);
VALUE(SMEM_MEM_TYPE_LOCAL_HOST, 1);
VALUE(SMEM_MEM_TYPE_DEVICE, 2);
VALUE(SMEM_MEM_TYPE_HOST, 3);
VALUE(SMEM_MEM_TYPE_BUTT, 4);
VALUE(SMEMS_DATA_OP_MTE, 1);
VALUE(SMEMS_DATA_OP_SDMA, 2);
VALUE(SMEMS_DATA_OP_ROCE, 4);
VALUE(SMEM_TRANS_NONE, 0);
VALUE(SMEM_TRANS_SENDER, 1);
VALUE(SMEM_TRANS_RECEIVER, 2);
VALUE(SMEM_TRANS_BOTH, 3);

int main(void)
{
	return 0;
}
