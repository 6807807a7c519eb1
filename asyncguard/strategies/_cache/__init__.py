"""How `cache_result` and `cache_items` work inside. A map, in reading order.

What a cache is made of:

- `options`    the options, checked, and `Terms`: what of them is the same for all calls
- `place`      `Place`: from the arguments of a call to its cell and its key
- `core`       `Core`: all that is cached; `Cell`: entries and flights of one function (of one object)
- `bound`      `Bound`: one guarded function in its cache; how it waits and tells
- `handles`    `CachedFunction`: `get`, `invalidate`, `refresh` of one function
- `strategy`   `CacheStrategy`: what both strategies have in common, and the handle to the whole
- `values`     what is done to a value: refused, kept apart from its callers, measured

One value, the way of a call (`cache_result.py` has the drivers, with a short cut for a hit on an int or a str):

- `look`       1. the look-up: a value at once (no lock, no await), or a `Call` that has to be made
- `calls`      2. `Call`: it joins the flight of its key or begins it, and waits; refreshing in the background
- `work`       3. `CallWork`: the computation in the flight, and its end: `store`, or `fail`
- `observe`       instead of all three with `mode="observe"`: only what would have happened

Item by item, the same way (`cache_items.py` has the drivers):

- `items_batch`  `Batch`: one call, with the keys, the rows and the flights of its items
- `items_calls`  1. and 2. for all items of a batch at once
- `items_work`   3. `BatchWork`: the computation, in chunks
- `items_rows`   a result taken apart into rows, and rows put together again

With a store, loaded only then; a flight begins as above, and only its work differs:

- `store_names`    `Names` and `Slot`: what values are called in the store, the same in all processes
- `store_tier`     `Tier`: one function in the store; reads, writes, and since when values count
- `store_steps`    the steps of work: look in the store, take a lease, compute, write
- `store_work`     3. `StoredCallWork`, `StoredBatchWork`: those steps for a call and for a batch
- `store_handles`  what the handles ask of the store

Where a parameter is called `at` it is a `Call` or a `Batch`: both know their `bound`, `core`, `terms` and `cell`.
Flights, keys, entries and the store in memory are machines (`flight`, `keyer`, `entries`, `store` in `_machines`); what
runs flights is in `_runtime` (`flights` in event loops, `flights_sync` in threads).
"""
