//! The numbers under which closed sets are stored; a number is never reused.

use crate::calendar::Period;
use crate::directory::{Connection, OrganizationState, ServiceKind};
use crate::holder::{BlockedBy, CardKind};

/// A value that is stored as a small number.
pub trait Numbered: Sized {
    /// The number of this value.
    fn number(self) -> u8;

    /// The value of a number.
    fn from_number(number: u8) -> Option<Self>;
}

/// Both directions from one list, so that they cannot differ and no variant can be forgotten.
macro_rules! numbered {
    ($($set:ident { $($variant:ident = $number:literal,)* })*) => {$(
        impl Numbered for $set {
            fn number(self) -> u8 {
                match self {
                    $($set::$variant => $number,)*
                }
            }

            fn from_number(number: u8) -> Option<$set> {
                match number {
                    $($number => Some($set::$variant),)*
                    _ => None,
                }
            }
        }
    )*};
}

numbered! {
    BlockedBy {
        Bank = 1,
        Holder = 2,
        Department = 3,
        System = 4,
    }
    CardKind {
        Ecs = 1,
        Social = 2,
        Resident = 3,
        EskBank = 4,
        EskNonfin = 5,
        Virtual = 6,
    }
    Connection {
        T1V1 = 1,
        T1V2 = 2,
        T2V1 = 3,
        T2V2 = 4,
        T3 = 5,
        Airline = 6,
    }
    OrganizationState {
        Submitted = 1,
        Returned = 2,
        Accepted = 3,
        Testing = 4,
        Active = 5,
        ChangePending = 6,
        Suspending = 7,
        Excluded = 8,
    }
    Period {
        Day = 1,
        Week = 2,
        Month = 3,
        Year = 4,
    }
    ServiceKind {
        Transport = 1,
        Visit = 2,
        Discount = 3,
        Meal = 4,
        Pass = 5,
        Attendance = 6,
        Payment = 7,
        Goods = 8,
    }
}
