/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures and docstrings of mf_adapter.TransferEngine. */
#ifndef SMEM_PY_ENGINE_DOC_H
#define SMEM_PY_ENGINE_DOC_H

static const char engine_doc[] =
    "TransferEngine()\n--\n\n"
    "A named endpoint whose registered memory peers write to and read from by address.\n\n"
    "Methods return 0 or a negative code and raise for arguments of a wrong type only;\n"
    "get_last_err_msg() explains the code. Before initialize() and after destroy() they return\n"
    "-2008. A context manager: the end of the block destroys it. So does garbage collection.\n\n"
    ">>> engine = TransferEngine()\n"
    ">>> engine.initialize('tcp://10.0.0.1:8570', '10.0.0.2:15001', 'Decode', -1)\n0";

static const char initialize_doc[] =
    "initialize($self, /, store_url, session_id, role, device_id)\n--\n\n"
    "Open the session (smem_trans_create).\n\n"
    "store_url   'tcp://HOST:PORT' of the config store, which may start later\n"
    "session_id  'HOST:PORT', the name peers use; nothing listens there\n"
    "role        'Prefill' (peers cannot write here) or 'Decode'\n"
    "device_id   accelerator, -1: none\n\n"
    "Returns 0, -2005 on a live engine, or the code behind the failure: -2000, -2004 (no store in\n"
    "time), -2006 (name taken), -2007 (destroyed meanwhile), -2021, -2023, -2024, -2025, -2001,\n"
    "-2002. May be tried again after a failure or destroy(). Blocks until the store is reached, "
    "at\n"
    "most 120 seconds.";

static const char get_rpc_port_doc[] =
    "get_rpc_port($self, /)\n--\n\n"
    "A free TCP port of this host, the same at every call, 0 if there is none.\n\n"
    "Chosen at random from 15000..17000, else from 17001..25000, and kept from others until\n"
    "destroy() or collection. Works before initialize(). Does not wait.";

static const char register_doc[] =
    "register_memory($self, /, buffer_addr, capacity)\n--\n\n"
    "Open capacity bytes at buffer_addr to peers (smem_trans_register_mem).\n\n"
    "Any alignment; exact. The caller keeps the memory alive until unregister_memory(). Returns 0\n"
    "(also for the same range again), -2000, -2006 (same address, other capacity), -2008, -2021.\n"
    "Does not wait.\n\n"
    ">>> engine.register_memory(array.ctypes.data, array.nbytes)\n0";

static const char unregister_doc[] =
    "unregister_memory($self, /, buffer_addr)\n--\n\n"
    "Close a registration, given its start; no write of a peer lands after it returned.\n\n"
    "Returns 0, -2000, -2007 (unknown), -2008, -2009 (a write does not end)\n"
    "(smem_trans_deregister_mem). Blocks for writes in flight, at most 5 seconds.";

static const char batch_register_doc[] =
    "batch_register_memory($self, /, buffer_addrs, capacities)\n--\n\n"
    "Register many ranges, all or none (smem_trans_batch_register_mem).\n\n"
    "Each argument is a list or tuple of integers, or a contiguous buffer of 8-byte integers\n"
    "(NumPy array, array.array('Q'), ...), which is used as it is. Unequal lengths: -2000. Empty:\n"
    "0. Otherwise as register_memory(). Does not wait.";

#define MOVE_CODES                                                                                 \
	"-2000 (range not registered there), -2007 (unknown session), -2008, -2020 (session\n"     \
	"lost), -2021, -2022, -2024. Blocks for the data movement, without the interpreter's\n"    \
	"lock; local memory must stay valid meanwhile."

static const char write_doc[] =
    "transfer_sync_write($self, /, dest_session, buffer, peer_buffer, length, flags=0)\n--\n\n"
    "Write length bytes from buffer here to peer_buffer there (smem_trans_write).\n\n"
    "When it returns 0 all bytes are there. flags is ignored. Sessions of role 'Prefill' do not\n"
    "accept writes: -2000. Returns 0 or " MOVE_CODES;

static const char read_doc[] =
    "transfer_sync_read($self, /, dest_session, buffer, peer_buffer, length, flags=0)\n--\n\n"
    "Read length bytes from peer_buffer there into buffer here (smem_trans_read).\n\n"
    "flags is 0 or 2, a hint. Allowed from every role. Returns 0, -2023 where the library has no\n"
    "reads, or " MOVE_CODES;

#define BATCH_ARGUMENTS                                                                            \
	"buffers, peer_buffers and lengths are lists or tuples of integers or contiguous "         \
	"buffers\n"                                                                                \
	"of 8-byte integers (NumPy array, array.array('Q'), ...), which are used as they are; "    \
	"they\n"                                                                                   \
	"must not be resized meanwhile. Unequal lengths: -2000 and nothing moves. Empty: 0.\n"

static const char batch_write_doc[] =
    "batch_transfer_sync_write($self, /, dest_session, buffers, peer_buffers, lengths, flags=0)\n"
    "--\n\n"
    "Write many pieces to one session in one call (smem_trans_batch_write).\n\n" BATCH_ARGUMENTS
    "Everything is checked before the first byte moves. flags is ignored. Returns 0 or " MOVE_CODES
    "\n\n>>> engine.batch_transfer_sync_write(peer, src + blocks, dst + blocks, sizes)\n0";

static const char batch_read_doc[] =
    "batch_transfer_sync_read($self, /, dest_session, buffers, peer_buffers, lengths, flags=0)\n"
    "--\n\n"
    "Read many pieces from one session in one call (smem_trans_batch_read).\n\n" BATCH_ARGUMENTS
    "flags is 0 or 2, a hint. Returns 0, -2023 where the library has no reads, or " MOVE_CODES;

static const char destroy_doc[] =
    "destroy($self, /)\n--\n\n"
    "Close the session, all registrations and the port (smem_trans_destroy).\n\n"
    "Idempotent; initialize() may follow. Calls of other threads in flight end with -2007. Blocks\n"
    "for data in flight, at most 5 seconds beyond it.";

static const char uninitialize_doc[] =
    "unInitialize($self, /)\n--\n\n"
    "Destroy all engines of this process (smem_trans_uninit).\n\n"
    "Nothing happens when this one is not initialised. Blocks as destroy().";

#endif
