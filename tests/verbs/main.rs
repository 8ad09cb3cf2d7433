//! The verbs that look and those that need no lab, each run as a person would.

mod describe;
mod doctor;
mod inspect;
mod lab;
mod shells;
mod words;
