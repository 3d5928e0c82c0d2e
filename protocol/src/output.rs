//! What an execution gave (SPEC §6.3): the archive of each output.

use std::collections::BTreeMap;

use minicbor::{
    Decoder, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    encode::{array, refuse},
    id::NarHash,
    limits,
    name::Name,
};

/// One output of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Output {
    /// The hash of its archive.
    pub nar: NarHash,
    /// Bytes of its archive.
    pub size: u64,
}

/// All outputs of an execution: at least one, at most [`limits::OUTPUTS`].
pub type Outputs = BTreeMap<Name, Output>;

/// Writes outputs as an array of `[name, nar, size]`, in order of names.
pub fn encode<W: Write>(outputs: &Outputs, e: &mut Encoder<W>) -> Result<(), WriteFailed<W::Error>> {
    e.array(outputs.len() as u64)?;
    for (name, output) in outputs {
        e.array(3)?.encode(name)?.encode(output.nar)?.u64(output.size)?;
    }
    Ok(())
}

/// Reads what [`encode`] writes.
///
/// # Errors
///
/// No outputs, more than [`limits::OUTPUTS`], or another shape. That they are in order is for
/// [`crate::encode::from_bytes`] to see.
pub fn decode(d: &mut Decoder<'_>) -> Result<Outputs, Malformed> {
    let at = d.position();
    let count = match d.array()? {
        None => return Err(refuse(at, "indefinite length")),
        Some(0) => return Err(refuse(at, "no outputs")),
        Some(count) if count > limits::OUTPUTS as u64 => {
            return Err(refuse(at, format!("{count} outputs, but at most {} are allowed", limits::OUTPUTS)));
        }
        Some(count) => count,
    };
    let mut outputs = Outputs::new();
    for _ in 0..count {
        array(d, 3)?;
        outputs.insert(d.decode()?, Output { nar: d.decode()?, size: d.u64()? });
    }
    Ok(outputs)
}
