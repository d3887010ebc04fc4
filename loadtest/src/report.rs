//! A run for people and for other programs. Every writer takes the run and gives back text.

mod charts;
pub mod csv;
pub mod hlog;
pub mod html;
pub mod junit;
mod markup;
pub mod svg;
