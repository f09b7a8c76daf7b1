//! One suite for every transport.
//!
//! [`suite`] is what a channel has to do, whatever it runs over; [`strangers`] what every network
//! transport has to do about those who are no members, [`credentials`] about certificates that are not
//! good, [`crowds`] about too many at once, [`hostile`] about members that mean harm, [`floods`] about
//! floods over QUIC, [`losses`] about packets of it that are lost, [`restarts`] about a peer that comes back; [`neighbours`] what shared memory has to do about a peer
//! that has died or gone mad. A transport takes part by a [`rig::Rig`].

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

mod certificates;
mod credentials;
mod crowds;
mod floods;
mod hostile;
mod losses;
mod neighbours;
mod restarts;
mod rig;
mod strangers;
mod suite;
mod turn;

/// The suite, as a module of tests for one transport.
macro_rules! conforms {
    ($transport:ident: $rig:ty; $($turn:ident { $($test:ident),+ $(,)? })+) => {
        mod $transport {
            $($(
                #[test]
                fn $test() {
                    let _turn = crate::turn::$turn();
                    crate::suite::$test::<$rig>();
                }
            )+)+
        }
    };
}

macro_rules! all_conform {
    ($($transport:ident: $rig:ty),+ $(,)?) => {
        $(
            conforms! { $transport: $rig;
                share {
                    messages_arrive_whole_and_in_order_in_both_directions,
                    every_size_up_to_the_limit_arrives_and_one_byte_more_is_refused_at_the_sender,
                    a_vectored_send_is_one_message,
                    a_channel_stops_at_its_bound_in_messages_and_goes_on_when_read,
                    a_channel_stops_at_its_bound_in_bytes_and_goes_on_when_read,
                    a_message_over_the_bound_in_bytes_passes_alone,
                    both_directions_full_at_once_are_no_deadlock,
                    a_receive_that_waits_does_not_hold_up_a_send,
                    a_close_with_messages_in_flight_delivers_them_and_then_ends,
                    what_is_sent_to_a_closed_end_fails,
                    an_abort_ends_both_ends_at_once,
                    dropping_the_last_handle_closes,
                    an_end_wakes_whoever_waits_at_it,
                    an_end_at_the_peer_wakes_whoever_waits,
                    closing_twice_or_after_an_abort_changes_nothing,
                    timeouts_zero_short_and_long_lose_no_byte,
                    a_timeout_is_kept,
                    a_slow_reader_gets_everything_and_holds_up_the_sender,
                    threads_that_share_an_end_get_each_message_once,
                    tasks_send_and_receive_and_a_dropped_future_loses_nothing,
                    threads_and_tasks_take_turns_at_one_end,
                    both_ends_know_each_other_and_count_what_passed,
                }
                take {
                    the_longest_message_of_all_arrives_and_one_byte_more_is_refused,
                    thousands_of_channels_live_side_by_side,
                }
            }
        )+
    };
}

all_conform! {
    memory: crate::rig::Memory,
    late: crate::rig::Late,
    shm: crate::rig::Shm,
    tcp: crate::rig::Tcp,
    tls: crate::rig::Tls,
    quic: crate::rig::Quic,
}

/// What every network transport does, beside the suite.
macro_rules! network_conforms {
    ($($module:ident: $rig:ty; )+) => {
        $(
            mod $module {
                network_conforms! { tests of $rig:
                    a_wrong_secret_is_refused_on_both_sides,
                    a_wrong_cluster_is_refused_on_both_sides,
                    a_wrong_purpose_is_refused_on_both_sides,
                    a_wrong_version_is_refused_on_both_sides_and_names_both,
                    a_missing_feature_is_refused_on_both_sides,
                    a_peer_that_falls_silent_is_lost_and_one_that_only_idles_is_not,
                    a_slow_reader_is_not_taken_for_silent,
                    a_reader_that_stalls_gets_everything_however_small_the_packets_were,
                    a_message_over_the_peers_limit_is_refused_at_the_sender,
                    an_address_of_ipv6_is_as_good,
                    a_listener_that_is_gone_refuses,
                    a_dialler_comes_back_after_a_loss,
                }
            }
        )+
    };
    (tests of $rig:ty: $($test:ident),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                let _turn = crate::turn::share();
                crate::strangers::$test::<$rig>();
            }
        )+
    };
}

network_conforms! {
    tcp_members: crate::rig::Tcp;
    tls_members: crate::rig::Tls;
    quic_members: crate::rig::Quic;
}
