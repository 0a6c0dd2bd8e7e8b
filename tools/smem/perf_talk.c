/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Question and answer between the two ranks, over the only thing that they surely have in common:
 * the store. They make an object of SHM of two ranks, and each word is an allgather: first one that
 * carries the question, then one that carries the answer; the other half of each is ignored. Who
 * waits for a word is blocked and uses no CPU.
 */
#include <stdio.h>
#include <string.h>

#include "perf_hosts.h"
#include "smem.h"
#include "smem_shm.h"

#define LOG_ERRORS 3
#define SLOT	   (2ull << 20)
#define JOIN_S	   120
#define ANSWER_S   300 /* longer than anything that is measured in one go */

int channel_open(struct channel *c, const char *url, unsigned rank)
{
	smem_shm_config_t config;
	uint32_t reach = 0;
	void *base;

	*c = (struct channel){.rank = rank};
	smem_set_log_level(LOG_ERRORS); /* that the store speaks plain TCP is not news here */
	/* If it cannot be hosted here, joining will say so. */
	if (rank == HOSTS_TARGET && !route_store_listens(url))
		smem_create_config_store(url);
	smem_shm_config_init(&config);
	config.startConfigStore = false;
	config.shmInitTimeout = config.shmCreateTimeout = JOIN_S;
	config.controlOperationTimeout = ANSWER_S;
	if (smem_shm_init(url, 2, rank, 0, &config) != SMEM_OK) {
		complain_smem("joining the store");
		return -1;
	}
	c->shm = smem_shm_create(0, 2, rank, SLOT, SMEMS_DATA_OP_MTE, 0, &base);
	if (!c->shm) {
		complain_smem("meeting the other rank");
		return -1;
	}
	if (smem_shm_topology_can_reach(c->shm, !rank, &reach) == SMEM_OK)
		c->near = reach & SMEMS_DATA_OP_MTE;
	return 0;
}

void channel_close(struct channel *c)
{
	smem_shm_uninit(0);
	*c = (struct channel){0};
}

static int word(struct channel *c, const struct talk *mine, struct talk *ret)
{
	struct talk both[2];

	if (smem_shm_control_allgather(c->shm, (const char *)mine, sizeof(*mine), (char *)both,
				       sizeof(both)) != SMEM_OK)
		return -1;
	*ret = both[!c->rank];
	ret->data[sizeof(ret->data) - 1] = '\0';
	return 0;
}

int channel_ask(struct channel *c, enum talk_what what, const struct talk *q, struct talk *ret)
{
	struct talk question = q ? *q : (struct talk){0}, answer = {0};

	question.what = what;
	int r = word(c, &question, &answer);
	if (r == 0)
		r = word(c, &question, &answer);
	if (r != 0) {
		answer.failed = 1;
		snprintf(answer.data, sizeof(answer.data), "%s", smem_get_last_err_msg());
	}
	if (ret)
		*ret = answer;
	return answer.failed ? -1 : 0;
}

int channel_hear(struct channel *c, struct talk *ret)
{
	const struct talk nothing = {0};

	return word(c, &nothing, ret);
}

int channel_answer(struct channel *c, const struct talk *a)
{
	struct talk ignored;

	return word(c, a, &ignored);
}
