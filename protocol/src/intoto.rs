//! An attestation in the words of others (SPEC §12.1): an in-toto statement with SLSA provenance, in
//! a DSSE envelope, for tools that read those.
//!
//! It says no more than the attestation does, and only its own attester can make it: the envelope
//! is signed with the same key, in a context of its own.

use serde_json::{Value, json};

use crate::{
    action::Action,
    derivation::ABI,
    id::NarHash,
    key::{Context, Signature, SigningKey},
    statement::{Body, Signed},
};

/// The media type of the payload, which is part of what is signed.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

fn digest(nar: &NarHash) -> Value {
    json!({ "blake3": nar.to_hex() })
}

/// The in-toto statement: null if `signed` is no attestation. `action` is what was executed, if it
/// is at hand: its inputs are then named.
fn statement(signed: &Signed, action: Option<&Action>) -> Value {
    let Body::Built(built) = &signed.statement().body else { return Value::Null };
    let subject: Vec<_> = built
        .outputs
        .iter()
        .map(|(name, output)| json!({ "name": name.as_str(), "digest": digest(&output.nar) }))
        .collect();
    let dependencies: Vec<_> = match action {
        Some(Action::Build(build)) => build
            .inputs
            .iter()
            .map(|(name, nar)| json!({ "name": name.as_str(), "digest": digest(nar) }))
            .collect(),
        Some(Action::Fetch(_)) | None => vec![],
    };
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": format!("urn:assize:{ABI}"),
                "externalParameters": { "action": built.action.to_string() },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": format!("urn:assize:{}", signed.statement().attester),
                    "version": {
                        "engine": built.platform.engine.as_str(),
                        "arch": built.platform.arch.as_str(),
                        "os": built.platform.os.as_str(),
                    },
                },
                "metadata": { "invocationId": signed.id().to_string() },
            },
        },
    })
}

/// The DSSE envelope of an attestation, as JSON. `key` is that of its attester.
pub fn envelope(signed: &Signed, action: Option<&Action>, key: &SigningKey) -> Value {
    let payload = statement(signed, action).to_string();
    // The context is the beginning of DSSE's own framing: "DSSEv1", the type's length, the type.
    let framed = format!("{} {payload}", payload.len());
    let signature = Signature::sign(key, Context::InToto, framed.as_bytes());
    json!({
        "payloadType": PAYLOAD_TYPE,
        "payload": data_encoding::BASE64.encode(payload.as_bytes()),
        "signatures": [{
            "keyid": signed.statement().attester.to_string(),
            "sig": data_encoding::BASE64.encode(signature.as_bytes()),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_dsse_framing() {
        let framing = format!("DSSEv1 {} {PAYLOAD_TYPE} ", PAYLOAD_TYPE.len());
        assert_eq!(Context::InToto.line(), framing.as_bytes());
    }
}
