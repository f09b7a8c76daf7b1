//! `libsds.h`: what programs written for nim-sds call.
//!
//! Each manager is a thread that owns a participant; a call copies its arguments and hands them
//! over. The thread sleeps until the next call or the time at which something is due.

mod config;
mod exports;
mod manager;
mod reply;
