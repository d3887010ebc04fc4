//! Arrays of bounded length.

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};

/// The elements of an array, at most one more than `MAX`; the others are skipped.
pub struct Items<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Items<T, MAX> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
            type Value = Items<T, MAX>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut elements: A,
            ) -> Result<Items<T, MAX>, A::Error> {
                let mut items = Vec::new();
                while items.len() <= MAX {
                    let Some(item) = elements.next_element()? else { return Ok(Items(items)) };
                    items.push(item);
                }
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Bounded(std::marker::PhantomData))
    }
}
