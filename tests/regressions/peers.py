"""Defects of other libraries, one library after the other, that are not on the list in `index.py`. Data only."""

from __future__ import annotations

PEERS: tuple[tuple[str, ...], ...] = (
    # --- tenacity -----------------------------------------------------------------------------------------------------
    (
        "generators are retried, or refused, but never passed through in silence",
        "#63, #64, #138, #610, #611, #612",
        "tests/regressions/test_streams_and_caches.py::test_an_error_before_the_first_item_is_retried_and_not_ignored",
        "tests/strategies/test_retry_generators.py::test_an_async_generator_is_retried_until_its_first_item",
        "tests/strategies/test_retry_generators.py::test_a_generator_is_retried_until_its_first_item",
        "tests/drivers/test_conformance.py::test_generators_are_guarded_or_refused",
        "tests/drivers/test_conformance.py::test_async_generators_are_guarded_or_refused",
    ),
    (
        "exception groups are told by their leaves",
        "#501",
        "tests/regressions/test_delays.py::test_a_group_of_errors_is_retried_if_each_of_them_would_be",
        "tests/machines/test_classify.py::test_a_group_is_as_bad_as_its_worst_leaf",
        "tests/machines/test_classify.py::test_groups_nested_without_end_are_unknown_and_no_endless_loop",
    ),
    (
        "what leaves is the user's error, and it pickles",
        "#24, #147, #182, #429; celery #5626; hyx",
        "tests/regressions/test_delays.py::test_what_leaves_is_the_users_error_and_pickles_with_its_facts",
        "tests/strategies/test_retry_errors.py::test_it_is_the_users_own_error_with_one_line",
        "tests/strategies/test_retry_errors.py::test_the_error_pickles_with_its_line",
        "tests/test_pipeline.py::test_errors_pickle_with_their_facts",
    ),
    (
        "it neither sleeps nor starts anything past the deadline",
        "#423; linkerd #2369",
        "tests/strategies/test_retry_deadline.py::test_it_gives_up_rather_than_sleep_past_the_deadline",
        "tests/strategies/test_retry_deadline.py::test_a_sleep_that_takes_too_long_starts_no_attempt",
        "tests/machines/test_attempts.py::test_a_verdict_never_sleeps_to_the_deadline_or_past_it",
    ),
    (
        "the number of attempts is the one that was asked for",
        "#459",
        "tests/regressions/test_delays.py::test_so_many_retries_are_one_call_more",
        "tests/strategies/test_retry.py::test_without_options_five_retries_make_six_calls",
        "tests/strategies/test_retry.py::test_no_retries_is_one_call",
    ),
    (
        "options at their ends make delays",
        "#425, #487, #499, #703, #710",
        "tests/regressions/test_delays.py::test_options_at_their_ends_make_delays",
        "tests/machines/test_backoff.py::test_no_delay_is_no_delay",
        "tests/machines/test_backoff.py::test_jitters_stay_within_their_bounds_and_the_cap_comes_first",
    ),
    # --- stamina ------------------------------------------------------------------------------------------------------
    (
        "what is told of one call is ended by no other",
        "hooks entered by one call and left by another",
        "tests/regressions/test_shared_objects.py::test_what_is_told_of_calls_at_once_is_each_its_own",
        "tests/telemetry/test_spans.py::test_a_cancelled_call_is_no_error",
        "tests/telemetry/test_record.py::test_a_pause_that_was_cancelled_is_no_attempt",
    ),
    (
        "a deadline ends the attempt, not only the retrying",
        "bcgov/bcdata_py #243, instructor #1711",
        "tests/strategies/test_retry_deadline.py::test_the_deadline_of_the_task_itself_ends_the_attempt_and_the_retrying",
        "tests/strategies/test_hedge.py::test_a_total_timeout_cancels_all_copies",
    ),
    # --- backoff ------------------------------------------------------------------------------------------------------
    (
        "elapsed time is not that of the wall clock",
        "#149, #150, #216",
        "tests/regressions/test_wall_clock.py::test_a_retry_goes_on_and_tells_no_hour",
    ),
    (
        "everything can be switched off from outside",
        "#206; tenacity #106, #156, #467",
        "tests/test_pipeline.py::test_the_environment_switches_modes",
        "tests/strategies/test_retry.py::test_off_calls_once_and_says_nothing",
    ),
    # --- backon -------------------------------------------------------------------------------------------------------
    (
        "a stream is not collected before it is given out",
        "unbounded memory",
        "tests/regressions/test_streams_and_caches.py::test_the_first_item_is_there_before_the_second_is_made",
        "tests/regressions/test_streams_and_caches.py::test_an_endless_stream_is_a_stream",
    ),
    (
        "a hedge starts after its delay and not with the call",
        "all at once",
        "tests/strategies/test_hedge.py::test_a_quick_call_is_not_hedged_and_its_timer_is_cancelled",
        "tests/strategies/test_hedge.py::test_a_slow_call_gets_a_second_copy_and_the_first_success_wins",
    ),
    (
        "a sync hedge waits for no loser",
        "0.41 s instead of 0.05 s",
        "tests/strategies/test_hedge_threads.py::test_the_copy_wins_and_nobody_waits_for_the_loser",
    ),
    # --- pyresilience -------------------------------------------------------------------------------------------------
    (
        "no exception is thrown into a thread",
        "PyThreadState_SetAsyncExc into a pool",
        "tests/regressions/test_threads_left_behind.py::test_works_that_hang_end_by_themselves_and_no_exception_is_thrown_into_them",
        "tests/regressions/test_threads_left_behind.py::test_no_thread_serves_two_calls",
        "tests/regressions/test_threads_left_behind.py::test_a_work_that_hangs_is_tried_again_by_no_retry_when_the_deadline_is_over",
        "tests/runtime/test_deadlines.py::test_abandoned_work_still_sees_that_its_deadline_is_over",
    ),
    (
        "callers who come one after the other share one computation",
        "15 callers, 15 calls",
        "tests/regressions/test_streams_and_caches.py::test_callers_who_come_one_after_the_other_while_it_is_computed_get_that_one_value",
        "tests/strategies/test_cache_flights.py::test_a_thousand_callers_of_one_cold_key_call_the_function_once",
    ),
    (
        "keys that fail leave nothing behind",
        "a lock for each of 2,000",
        "tests/regressions/test_streams_and_caches.py::test_keys_that_fail_leave_nothing_behind",
        "tests/regressions/test_streams_and_caches.py::test_the_same_in_async_code",
    ),
    (
        "full jitter goes down to nothing",
        "max(0.1 * base, ...)",
        "tests/machines/test_backoff.py::test_jitters_stay_within_their_bounds_and_the_cap_comes_first",
        "tests/machines/test_backoff.py::test_contention_ends_as_in_the_published_simulation",
    ),
    (
        "who waits for a rate does not poll",
        "10 ms; throttled-py 0.2 s",
        "tests/regressions/test_rates.py::test_waiting_is_one_timer_each_and_no_polling",
        "tests/machines/test_bucket.py::test_nobody_is_woken_who_was_not_moved",
    ),
    (
        "`on` of a fallback holds for rejections",
        "ignored",
        "tests/regressions/test_streams_and_caches.py::test_a_rejection_that_is_not_named_is_not_answered",
        "tests/strategies/test_fallback.py::test_only_the_named_errors_are_answered",
        "tests/strategies/test_fallback.py::test_rejections_and_refused_inputs_are_answered",
    ),
    (
        "there is an event for half-open",
        "none",
        "tests/regressions/test_circuits.py::test_it_tells_of_every_change_and_how_long_it_lasts",
        "tests/strategies/test_circuit_breaker.py::test_events_tell_what_happened_and_why",
    ),
    # --- baldur-framework ---------------------------------------------------------------------------------------------
    (
        "nothing is loaded that is not needed",
        "pydantic, requests, structlog, typer",
        "tests/test_imports.py::test_importing_asyncguard_loads_no_dependency",
        "tests/test_imports.py::test_a_call_through_a_plain_strategy_loads_no_dependency",
    ),
    # --- hyx ----------------------------------------------------------------------------------------------------------
    (
        "calls at once do not share a sequence of delays",
        "0.001 to 1e8 s; aiohttp-retry (Fibonacci)",
        "tests/regressions/test_shared_objects.py::test_calls_at_once_have_delays_of_their_own",
        "tests/regressions/test_shared_objects.py::test_every_request_of_a_client_begins_with_the_first_delay",
    ),
    (
        "`uncancel` is called once",
        "cancelling() == 1 after a timeout",
        "tests/regressions/test_cancelled_calls.py::test_a_cancelled_task_counts_one_cancellation_and_a_timeout_around_it_none",
        "tests/runtime/test_deadlines.py::test_nested_the_inner_fires",
        "tests/runtime/test_deadlines.py::test_used_again_and_again_in_one_task",
        "tests/runtime/test_deadlines.py::test_inside_a_task_that_is_already_being_cancelled",
        "tests/strategies/test_hedge_cancel.py::test_the_count_of_cancellations_is_what_the_callers_made",
    ),
    (
        "an error that is no failure is no success either",
        "Polly #1979; circuitbreaker (resets the count)",
        "tests/regressions/test_circuits.py::test_an_error_that_is_no_failure_closes_nothing_and_gives_the_probe_back",
        "tests/regressions/test_circuits.py::test_errors_that_are_no_failures_do_not_end_a_row_of_failures",
    ),
    (
        "the cap of the delay comes before the jitter",
        "jitter after the cap; consul #9988; aiohttp-retry",
        "tests/machines/test_backoff.py::test_at_the_cap_the_delays_are_spread_and_do_not_converge",
    ),
    # --- clients of HTTP ----------------------------------------------------------------------------------------------
    (
        "a request that is not idempotent is not sent twice",
        "aiohttp-retry (POST by default)",
        "tests/integrations/test_aiohttp.py::test_only_idempotent_methods_are_retried",
        "tests/integrations/test_aiohttp.py::test_other_methods_when_told_so",
    ),
    (
        "what is retried by default is what the page says",
        "aiohttp-retry #114 and #35",
        "tests/regressions/test_delays.py::test_without_options_the_errors_that_may_pass_are_retried_and_no_others",
    ),
    (
        "the first delay is not skipped",
        "aiohttp-retry",
        "tests/regressions/test_delays.py::test_the_first_delay_is_not_skipped",
    ),
    # --- pybreaker, aiobreaker, purgatory, circuitbreaker, lasier -----------------------------------------------------
    (
        "failures of `async def` are counted",
        "pybreaker #7",
        "tests/regressions/test_circuits.py::test_failures_of_async_functions_of_every_kind_are_counted",
        "tests/strategies/test_circuit_breaker.py::test_it_opens_refuses_probes_and_closes",
    ),
    (
        "the call that opens the circuit gets its own error",
        "pybreaker, lasier",
        "tests/regressions/test_circuits.py::test_the_call_that_opens_it_gets_its_own_error",
    ),
    (
        "a refusal says how long the circuit stays open",
        "pybreaker #82",
        "tests/machines/test_circuit.py::test_an_open_circuit_refuses_with_the_numbers",
        "tests/strategies/test_circuit_breaker.py::test_it_opens_refuses_probes_and_closes",
    ),
    (
        "zero seconds are refused, not replaced",
        "circuitbreaker (30)",
        "tests/regressions/test_circuits.py::test_no_time_to_stay_open_is_refused_instead_of_replaced",
    ),
    (
        "under threads no outcome is lost",
        "circuitbreaker #61",
        "tests/machines/test_circuit.py::test_under_threads_no_outcome_is_lost",
    ),
    # --- aiolimiter, limits, pyrate-limiter, throttled-py -------------------------------------------------------------
    (
        "several loops share one rate and nobody hangs",
        "limits (902 of 1,200), aiolimiter #292",
        "tests/regressions/test_loops_and_processes.py::test_four_loops_with_300_calls_each_on_one_rate_all_come_through",
        "tests/strategies/test_rate_limit.py::test_several_event_loops_share_one_rate",
    ),
    (
        "a burst is exact to its last unit",
        "pyrate-limiter (floats)",
        "tests/machines/test_bucket.py::test_a_burst_is_exact_and_so_is_every_call_after_it",
    ),
    (
        "a caller who must not wait does not",
        "pyrate-limiter (0.83 s)",
        "tests/regressions/test_rates.py::test_a_caller_who_does_not_want_to_wait_does_not_wait_behind_those_who_do",
        "tests/strategies/test_rate_limit.py::test_a_wait_beyond_max_wait_is_refused_at_once_and_takes_nothing",
    ),
    (
        "looking for idle keys costs little",
        "limits (a scan under the lock)",
        "tests/machines/test_partitions.py::test_asking_whether_gates_are_idle_costs_little_per_key_even_when_none_is",
    ),
    (
        "a refusal takes nothing and its time is exact",
        "smithy-rs #4632, throttled-py",
        "tests/regressions/test_rates.py::test_refused_calls_take_nothing_however_many_they_are",
        "tests/regressions/test_rates.py::test_a_refusal_says_when_and_never_now",
    ),
    # --- Polly --------------------------------------------------------------------------------------------------------
    (
        "losers of a hedge are cancelled and waited for",
        "dotnet/extensions #5699",
        "tests/strategies/test_hedge_cancel.py::test_caller_cancellation_at_any_moment_leaves_no_task",
        "tests/strategies/test_hedge_cancel.py::test_no_permit_of_the_stack_is_left",
    ),
    (
        "an endless delay is no negative one",
        "#2163",
        "tests/regressions/test_delays.py::test_1200_attempts_neither_overflow_nor_leave_their_cap",
    ),
    # --- resilience4j -------------------------------------------------------------------------------------------------
    (
        "a bulkhead is first come, first served",
        "#2063",
        "tests/machines/test_slots.py::test_waiters_are_served_in_the_order_of_arrival",
        "tests/test_admission.py::test_waiters_get_in_as_slots_come_free",
    ),
    (
        "the turn of an interrupted waiter comes back",
        "available stayed at -1",
        "tests/regressions/test_rates.py::test_a_waiter_that_is_interrupted_gives_its_turn_back",
        "tests/machines/test_bucket.py::test_a_thousand_cancelled_waiters_leave_no_trace",
    ),
    # --- CPython ------------------------------------------------------------------------------------------------------
    (
        "a cancellation in the turn of a timeout or of a grant is not lost",
        "#86296 (wait_for)",
        "tests/runtime/test_deadlines.py::test_an_outside_cancellation_wins_in_the_same_turn",
        "tests/test_admission.py::test_cancellation_of_a_waiter_at_every_step_loses_no_slot",
        "tests/regressions/test_cancelled_calls.py::test_wait_for_around_a_retry_times_out",
    ),
    # --- Failsafe, Finagle, Netflix, Envoy, gRPC ----------------------------------------------------------------------
    (
        "an empty budget kills no hedge that is under way",
        "failsafe-go #139 and #141",
        "tests/strategies/test_hedge.py::test_an_empty_budget_refuses_the_hedge_and_kills_nothing_in_flight",
        "tests/strategies/test_hedge.py::test_no_more_hedges_are_sent_than_the_extra_load_allows",
    ),
    (
        "who calls seldom may retry all the same",
        "failsafe-go #106",
        "tests/machines/test_budget.py::test_the_default_lets_those_who_call_seldom_retry",
    ),
    (
        "a limit does not run away to its maximum",
        "concurrency-limits #134 and #141 (Gradient2)",
        "tests/strategies/test_adaptive_concurrency.py::test_on_a_server_of_20_slots_the_limit_stays_at_20_to_30_and_follows_a_halved_capacity",
        "tests/strategies/test_adaptive_concurrency.py::test_timeouts_and_throttling_are_drops",
    ),
    (
        "the important do not starve the others",
        "Envoy #38241",
        "tests/machines/test_weighted_slots.py::test_nobody_starves_under_a_stream_of_important_calls",
        "tests/strategies/test_bulkhead.py::test_waiting_makes_up_for_priority",
    ),
    (
        "retries inside of retries do not multiply",
        "livekit/agents #5335, nanobot #2759, code_puppy #317",
        "tests/strategies/test_retry_errors.py::test_three_retries_deep_is_still_one",
        "tests/strategies/test_retry_errors.py::test_what_an_inner_retry_gave_up_on_is_not_retried_by_an_outer_one",
    ),
    (
        "nested hedges do not multiply",
        "Finagle",
        "tests/strategies/test_hedge.py::test_nested_hedges_do_not_multiply",
        "tests/strategies/test_hedge_threads.py::test_nested_hedges_do_not_multiply",
    ),
)
