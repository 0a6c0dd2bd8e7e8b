/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port is free when both wildcard addresses can be bound without SO_REUSEADDR; staying bound is
 * what keeps it from others, in this and other processes. Random order keeps processes that start
 * together from trying the same ones.
 */
#include "port.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST  15000
#define SPLIT  17001 /* the second range begins here */
#define LAST   25000
#define CHOICE (LAST - SPLIT + 1)

static struct port *list;

static int bind4(uint16_t number)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(number)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* -1: taken; -2: no IPv6 here */
static int bind6(uint16_t number)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(number)};
	const int on = 1;
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -2;
	if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == 0 &&
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	address.sin6_port = 0;
	bool usable = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
	close(fd);
	return usable ? -1 : -2;
}

static bool reserve(uint16_t number, struct port *ret)
{
	int fd4 = bind4(number);

	if (fd4 < 0)
		return false;
	int fd6 = bind6(number);
	if (fd6 == -1) {
		close(fd4);
		return false;
	}
	*ret = (struct port){.number = number, .fd4 = fd4, .fd6 = fd6 < 0 ? -1 : fd6};
	return true;
}

static uint32_t random_below(uint32_t n)
{
	uint32_t r = 0;

	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		r = (uint32_t)getpid() * 2654435761U;
	return r % n;
}

/* Draws without putting back, as in a shuffle. */
static bool reserve_in(uint16_t first, uint16_t last, struct port *ret)
{
	uint16_t numbers[CHOICE];
	uint32_t count = (uint32_t)(last - first) + 1;

	for (uint32_t i = 0; i < count; i++)
		numbers[i] = (uint16_t)(first + i);
	for (; count; count--) {
		uint32_t i = random_below(count);
		if (reserve(numbers[i], ret))
			return true;
		numbers[i] = numbers[count - 1];
	}
	return false;
}

void port_reserve(struct port *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (!reserve_in(FIRST, SPLIT - 1, ret))
		reserve_in(SPLIT, LAST, ret);
}

void port_release(struct port *p)
{
	if (!p->number)
		return;
	close(p->fd4);
	if (p->fd6 >= 0)
		close(p->fd6);
	memset(p, 0, sizeof(*p));
}

void port_list_add(struct port *p)
{
	p->prev = NULL;
	p->next = list;
	if (list)
		list->prev = p;
	list = p;
}

void port_list_remove(struct port *p)
{
	if (p->prev)
		p->prev->next = p->next;
	else if (list == p)
		list = p->next;
	if (p->next)
		p->next->prev = p->prev;
	p->next = p->prev = NULL;
}

void port_list_drop(bool (*which)(const void *owner))
{
	struct port *next;

	for (struct port *p = list; p; p = next) {
		next = p->next;
		if (which && !which(p->owner))
			continue;
		port_list_remove(p);
		port_release(p);
	}
}
