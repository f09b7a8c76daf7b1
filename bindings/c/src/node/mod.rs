//! `mainstay_sds.h`: a participant that does nothing unless it is called.

mod backend;
mod body;
mod exports;
mod failure;
mod layout;
