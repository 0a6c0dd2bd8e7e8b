/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures and docstrings of mf_smem.shm. */
#ifndef SMEM_PY_SHM_DOC_H
#define SMEM_PY_SHM_DOC_H

static const char initialize_doc[] =
    "initialize($module, /, store_url, world_size, rank_id, device_id, config)\n--\n\n"
    "Initialise SHM in this process (smem_shm_init).\n\n"
    "store_url   'tcp://HOST:PORT' of the config store\n"
    "world_size  number of ranks, 1..1024\n"
    "rank_id     own rank, below world_size\n"
    "device_id   accelerator, 0..65535; only recorded where there is none\n"
    "config      ShmConfig\n\n"
    "Returns 0, also when already initialised, or the code: -2000, -2004, -2009, -2021, -2023,\n"
    "-2024, -2025, -2001, -2002; get_last_err_msg() explains it. Blocks until the store is\n"
    "reached, at most config.init_timeout seconds.\n\n"
    ">>> shm.initialize('tcp://127.0.0.1:8570', 2, 0, 0, shm.ShmConfig())\n0";

static const char uninitialize_doc[] =
    "uninitialize($module, /, flags=0)\n--\n\n"
    "Destroy all SHM objects of this process (smem_shm_uninit).\n\n"
    "Nothing happens when SHM is not initialised. Raises BufferError while views of its memory\n"
    "are alive. Blocks at most 10 seconds.";

#define QUERY_TEXT                                                                                 \
	"ShmDataOpType bits that code can use on SHM memory here, never 0.\n\n"                    \
	"Works before initialize() and on destroyed objects\n"                                     \
	"(smem_shm_query_support_data_operation). Does not block."

static const char query_doc[] = "query_support_data_operation($module, /)\n--\n\n" QUERY_TEXT;

static const char method_query_doc[] = "query_support_data_operation($self, /)\n--\n\n" QUERY_TEXT;

#define CREATE_ARGUMENTS                                                                           \
	"id              0..63, unique per store while the object lives\n"                         \
	"rank_size       how many ranks call it, 1..1024\n"                                        \
	"rank_id         own number among them\n"                                                  \
	"local_mem_size  bytes each rank gives, a multiple of 2 MiB up to 4 GiB\n"                 \
	"data_op_type    ShmDataOpType, within query_support_data_operation()\n"                   \
	"flags           reserved, 0\n\n"                                                          \
	"Collective: blocks until all ranks have called it, at most ShmConfig.create_timeout\n"    \
	"seconds. Raises SmemError: -2000 (on all ranks, for unlike arguments), -2001, -2002,\n"   \
	"-2004 naming the missing ranks, -2006 (id taken), -2008, -2009, -2020 (a rank was "       \
	"lost),\n"                                                                                 \
	"-2023."

static const char create_doc[] =
    "create($module, /, id, rank_size, rank_id, local_mem_size, data_op_type=ShmDataOpType.MTE,\n"
    "       flags=0)\n--\n\n"
    "Create symmetric memory; the same as ShareMemory(...) (smem_shm_create).\n\n" CREATE_ARGUMENTS;

static const char share_memory_doc[] =
    "ShareMemory(id, rank_size, rank_id, local_mem_size, data_op_type=ShmDataOpType.MTE,\n"
    "            flags=0)\n--\n\n"
    "Symmetric memory: a slot of each rank in one address space "
    "(smem_shm_create).\n\n" CREATE_ARGUMENTS
    "\n\nA context manager: the end of the block destroys it. So does garbage collection.\n\n"
    ">>> with shm.ShareMemory(0, 2, rank, 2 << 20) as memory:\n"
    "...     memory.view()[:5] = b'hello'\n"
    "...     memory.barrier()";

static const char local_rank_doc[] =
    "rank_id of create (smem_shm_get_global_rank). Raises SmemError: -2000, -2008.";

static const char rank_size_doc[] =
    "rank_size of create (smem_shm_get_global_rank_size). Raises SmemError: -2000, -2008.";

static const char gva_doc[] =
    "Base address; slot r begins at gva + r * local_mem_size. Raises SmemError: -2000, -2008.";

static const char set_context_doc[] =
    "set_context($self, /, context)\n--\n\n"
    "Publish 1..65536 bytes for the other ranks (smem_shm_set_extra_context).\n\n"
    "context is bytes or any contiguous buffer; a later call replaces it. Raises SmemError: "
    "-2000,\n"
    "-2008, -2021. Waits for the store only.";

static const char get_context_doc[] =
    "get_context($self, /, rank)\n--\n\n"
    "The bytes that a rank published, b'' if none (smem_shm_get_extra_context).\n\n"
    "At least as new as the last common barrier. Raises SmemError: -2000, -2008, -2020, -2021.\n"
    "Waits for the store only.";

static const char barrier_doc[] =
    "barrier($self, /)\n--\n\n"
    "Wait until all ranks are here (smem_shm_control_barrier).\n\n"
    "All stores made before by any rank are visible after. Raises SmemError: -2000, -2004 naming\n"
    "the missing ranks, -2007, -2008, -2020 (a rank was lost or destroyed the object), -2021.\n"
    "Blocks at most ShmConfig.operation_timeout seconds.";

static const char all_gather_doc[] =
    "all_gather($self, /, local_data)\n--\n\n"
    "Bytes of all ranks in rank order: rank_size * len(local_data) "
    "(smem_shm_control_allgather).\n\n"
    "local_data is bytes or any contiguous buffer of 1..65536 bytes, equally long on all ranks.\n"
    "Raises SmemError as barrier(). Blocks at most ShmConfig.operation_timeout seconds.\n\n"
    ">>> memory.all_gather(bytes([memory.local_rank]))\nb'\\x00\\x01'";

static const char reach_doc[] =
    "topology_can_reach($self, /, remote_rank, reach_info=None)\n--\n\n"
    "ShmDataOpType bits by which a rank's slot can be reached; 0 when it is lost.\n\n"
    "With reach_info (its value is ignored) the code is returned instead, 0 on success, and\n"
    "nothing is raised for it (smem_shm_topology_can_reach). Raises SmemError: -2000, -2008. Does\n"
    "not block.";

static const char register_exit_doc[] =
    "register_exit($self, /, callback)\n--\n\n"
    "Have callback(status) run once when a rank announces its exit (smem_shm_register_exit).\n\n"
    "It runs in a thread of the library and may call everything, destroy() and uninitialize()\n"
    "included; an exception in it goes to sys.unraisablehook. Raises SmemError: -2000, -2005\n"
    "(registered already), -2008, -2021. Does not block.";

static const char global_exit_doc[] =
    "global_exit($self, /, status)\n--\n\n"
    "Announce a status to all ranks; the first one counts (smem_shm_global_exit).\n\n"
    "Does not end the process and does not wait. Raises SmemError: -2000, -2008, -2021.";

static const char view_doc[] =
    "view($self, /, rank=None)\n--\n\n"
    "A rank's slot as a writable memoryview of bytes, without a copy; None: the own slot.\n\n"
    "NumPy (numpy.frombuffer) and torch (torch.frombuffer, or from_dlpack of the NumPy array) see\n"
    "the same memory, which begins at gva + rank * local_mem_size. The view keeps the object:\n"
    "while it or anything made from it is alive, destroy() and uninitialize() raise BufferError.\n"
    "It stays usable when that rank is lost or destroys its side; not in a forked child.\n\n"
    "Raises SmemError: -2000, -2008, -2023 (slot not load/store-able here, as on other hosts).\n"
    "Does not wait.";

static const char destroy_doc[] =
    "destroy($self, /, flags=0)\n--\n\n"
    "Withdraw from the group and free memory and address space (smem_shm_destroy).\n\n"
    "Local, no barrier. Idempotent; a silent no-op after uninitialize() and in a forked child.\n"
    "Raises BufferError while views of the object's memory are alive. Blocks at most 5 seconds.";

#endif
