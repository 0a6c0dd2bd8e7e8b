/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures and docstrings of mf_smem.bm. */
#ifndef SMEM_PY_BM_DOC_H
#define SMEM_PY_BM_DOC_H

static const char initialize_doc[] =
    "initialize($module, /, store_url, world_size, device_id, config)\n--\n\n"
    "Initialise BM in this process and take a rank (smem_bm_init).\n\n"
    "store_url   'tcp://HOST:PORT' of the config store\n"
    "world_size  number of ranks, 1..1024\n"
    "device_id   accelerator, 0..65535; only recorded where there is none\n"
    "config      BmConfig\n\n"
    "Returns 0, also when already initialised, or the code: -2000, -2004, -2006, -2009, -2021,\n"
    "-2023, -2024, -2025, -2001, -2002; get_last_err_msg() explains it. Blocks until the store is\n"
    "reached (auto_ranking: until all ranks are there), at most config.init_timeout seconds.\n\n"
    ">>> bm.initialize('tcp://127.0.0.1:8570', 2, 0, bm.BmConfig(rank_id=0))\n0";

static const char uninitialize_doc[] =
    "uninitialize($module, /, flags=0)\n--\n\n"
    "Destroy all BM objects of this process and give the rank back (smem_bm_uninit).\n\n"
    "Nothing happens when BM is not initialised. Raises BufferError while views of pool memory "
    "are\n"
    "alive. Blocks at most 10 seconds beyond copies in flight.";

static const char bm_rank_id_doc[] =
    "bm_rank_id($module, /)\n--\n\n"
    "Own rank, or 4294967295 when BM is not initialised (smem_bm_get_rank_id). Does not block.";

#define CREATE_ARGUMENTS                                                                           \
	"id               any 32-bit number, one live object each in a process\n"                  \
	"local_dram_size  bytes of host memory this rank gives, a multiple of 2 MiB up to 4 GiB\n" \
	"local_hbm_size   bytes of device memory, the same; one of the two may be 0\n"             \
	"data_op_type     preferred path, BmDataOpType; never changes results\n"                   \
	"flags            reserved, 0\n"                                                           \
	"member_size      how many ranks may be joined at a time; 0: world_size\n\n"               \
	"Raises SmemError: -2000, -2001, -2002, -2004, -2006 (id taken), -2008, -2009. Waits "     \
	"for\n"                                                                                    \
	"the store only, at most BmConfig.create_timeout seconds."

static const char create_doc[] =
    "create($module, /, id, local_dram_size, local_hbm_size, data_op_type=BmDataOpType.SDMA,\n"
    "       flags=0, member_size=0)\n--\n\n"
    "Create a pool with this rank's memory in it; the same as BigMemory(...) "
    "(smem_bm_create).\n\n" CREATE_ARGUMENTS;

static const char big_memory_doc[] =
    "BigMemory(id, local_dram_size, local_hbm_size, data_op_type=BmDataOpType.SDMA, flags=0,\n"
    "          member_size=0)\n--\n\n"
    "A pool of memory with one address space in all its members "
    "(smem_bm_create).\n\n" CREATE_ARGUMENTS
    "\n\nA context manager: the end of the block destroys it. So does garbage collection.\n\n"
    ">>> with bm.BigMemory(1, 2 << 20, 0) as pool:\n"
    "...     pool.join()\n"
    "...     pool.copy_data(array.ctypes.data, pool.peer_rank_ptr(1), array.nbytes,\n"
    "...                    bm.BmCopyType.H2G)";

static const char join_doc[] =
    "join($self, /, flags=0)\n--\n\n"
    "Become a member and return the address of the own slot (smem_bm_join).\n\n"
    "When it returns, of any two joined ranks each may copy to the other. Repeated: the same\n"
    "address. Raises SmemError: -2000 (sizes unlike the members'), -2004, -2007, -2008, -2009\n"
    "(group full), -2021. Blocks for live members, at most BmConfig.operation_timeout seconds.";

static const char leave_doc[] =
    "leave($self, /, flags=0)\n--\n\n"
    "End the membership; the own slot stays until destroy() (smem_bm_leave).\n\n"
    "Raises SmemError: -2003 (not joined), -2004 (a member did not acknowledge; left all the\n"
    "same), -2007, -2008, -2021; BufferError while views of other ranks' slots are alive.\n"
    "Blocks for live members, at most BmConfig.operation_timeout seconds.";

static const char local_mem_size_doc[] =
    "local_mem_size($self, /, mem_type=None)\n--\n\n"
    "Bytes this rank gives: device memory if any, else host memory; or those of one window.\n\n"
    "mem_type is BmMemType.DEVICE, BmMemType.HOST or None (smem_bm_get_local_mem_size,\n"
    "smem_bm_get_local_mem_size_by_mem_type). 0 for a window that the pool lacks. Raises\n"
    "SmemError: -2000, -2008. Does not block.";

static const char peer_rank_ptr_doc[] =
    "peer_rank_ptr($self, /, peer_rank, mem_type=None)\n--\n\n"
    "Address of a rank's slot in the device window if there is one, else in the host window.\n\n"
    "mem_type (BmMemType.DEVICE or HOST) chooses the window. Pure arithmetic, the rank need not\n"
    "have joined (smem_bm_ptr, smem_bm_ptr_by_mem_type). Raises SmemError: -2000, -2008. Does not\n"
    "block.";

static const char copy_data_doc[] =
    "copy_data($self, /, src_ptr, dst_ptr, size, type, flags=0)\n--\n\n"
    "Copy size bytes between local memory and the pool (smem_bm_copy).\n\n"
    "type is a BmCopyType: L2G, H2G to the pool, G2L, G2H from it; addresses are integers, size "
    "is\n"
    "in bytes. When it returns all bytes are there. Raises SmemError: -2000 (range), -2003 (rank\n"
    "not joined or left), -2008, -2020 (rank lost), -2021, -2022, -2024. Blocks for the data\n"
    "movement, without the interpreter's lock. Local memory must stay valid meanwhile.\n\n"
    ">>> pool.copy_data(array.ctypes.data, pool.peer_rank_ptr(1), array.nbytes, BmCopyType.H2G)";

static const char copy_data_2d_doc[] =
    "copy_data_2d($self, /, params, type, flags=0)\n--\n\n"
    "Copy rows between local memory and the pool (smem_bm_copy_2d).\n\n"
    "params is a CopyData2DParams, type a BmCopyType. Raises SmemError as copy_data(); -2000 also\n"
    "for a pitch below width with more than one row. Blocks for the data movement.";

static const char view_doc[] =
    "view($self, /, peer_rank=None, mem_type=None)\n--\n\n"
    "A rank's slot as a writable memoryview of bytes, without a copy; None: the own slot.\n\n"
    "NumPy (numpy.frombuffer) and torch (torch.frombuffer, or from_dlpack of the NumPy array) see\n"
    "the same memory; its address is peer_rank_ptr(peer_rank, mem_type). The view keeps the pool:\n"
    "while it or anything made from it is alive, destroy(), uninitialize() and, for slots of "
    "other\n"
    "ranks, leave() raise BufferError. A view of another rank's slot must not be used after that\n"
    "rank left (a lost rank's last contents stay readable), and no view in a forked child.\n\n"
    "Raises SmemError: -2000, -2003 (rank not a member), -2008, -2020, -2023 (slot not\n"
    "load/store-able here, as on other hosts). Does not wait.\n\n"
    ">>> numpy.frombuffer(pool.view(1), dtype=numpy.float32)[:] = 1.0";

static const char destroy_doc[] =
    "destroy($self, /)\n--\n\n"
    "Leave the group, free memory and address space (smem_bm_destroy).\n\n"
    "Idempotent; a silent no-op after uninitialize() and in a forked child. Calls of other "
    "threads\n"
    "in flight end with -2007. Raises BufferError while views of the pool's memory are alive.\n"
    "Blocks at most 5 seconds beyond copies in flight.";

#endif
