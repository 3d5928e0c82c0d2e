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
    use std::collections::BTreeMap;

    use data_encoding::BASE64;

    use super::*;
    use crate::{
        derivation::{Derivation, Input},
        id::{ActionId, StatementId},
        key::{AttesterKey, Verifier},
        name::Name,
        output::{Output, Outputs},
        statement::{Attestation, Ending, Failure, Platform, Statement},
    };

    #[test]
    fn the_context_is_dsse_framing() {
        let framing = format!("DSSEv1 {} {PAYLOAD_TYPE} ", PAYLOAD_TYPE.len());
        assert_eq!(Context::InToto.line(), framing.as_bytes());
    }

    fn signed(body: Body) -> Signed {
        let (attester, prev) = (AttesterKey::of(&key()), StatementId::from_bytes([0; 32]));
        Statement { attester, seq: 0, prev, time: 0, body }.sign(&key()).unwrap()
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn text(value: &Value) -> &[u8] {
        value.as_str().unwrap().as_bytes()
    }

    /// SPEC §12.1: what is said there is what was attested, under the attester's signature.
    #[test]
    fn an_envelope_says_what_was_attested() {
        let mut build = crate::derivation::tests::sample();
        let clang = NarHash::of(b"clang");
        build.inputs = BTreeMap::from([(Name::new("clang").unwrap(), Input::Nar(clang))]);
        let action = Derivation::build(build).unwrap().resolve(|_, _| None).unwrap();
        let nar = NarHash::of(b"hello");
        let name = |text| Name::new(text).unwrap();
        let said = signed(Body::Built(Attestation {
            action: action.id(),
            outputs: Outputs::from([(Name::out(), Output { nar, size: 5 })]),
            witness: None,
            platform: Platform { engine: name("v8-1"), arch: name("riscv64"), os: name("freebsd") },
        }));
        let envelope = envelope(&said, Some(&action), &key());
        let attester = said.statement().attester;
        assert_eq!(envelope["payloadType"], PAYLOAD_TYPE);
        assert_eq!(envelope["signatures"][0]["keyid"], attester.to_string());

        let payload = BASE64.decode(text(&envelope["payload"])).unwrap();
        let signature = BASE64.decode(text(&envelope["signatures"][0]["sig"])).unwrap();
        let signature = Signature::from_bytes(signature.try_into().unwrap());
        let framed = [format!("{} ", payload.len()).as_bytes(), &payload].concat();
        Verifier::new(attester).unwrap().verify(Context::InToto, &framed, &signature).unwrap();

        let statement: Value = serde_json::from_slice(&payload).unwrap();
        for (at, expected) in [
            ("/subject/0/name", "out".to_owned()),
            ("/subject/0/digest/blake3", nar.to_hex()),
            ("/predicate/buildDefinition/buildType", format!("urn:assize:{ABI}")),
            ("/predicate/buildDefinition/externalParameters/action", action.id().to_string()),
            ("/predicate/buildDefinition/resolvedDependencies/0/name", "clang".into()),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest/blake3", clang.to_hex()),
            ("/predicate/runDetails/builder/id", format!("urn:assize:{attester}")),
            ("/predicate/runDetails/builder/version/engine", "v8-1".into()),
            ("/predicate/runDetails/builder/version/arch", "riscv64".into()),
            ("/predicate/runDetails/builder/version/os", "freebsd".into()),
            ("/predicate/runDetails/metadata/invocationId", said.id().to_string()),
        ] {
            assert_eq!(statement.pointer(at), Some(&expected.into()), "{at}");
        }
    }

    #[test]
    fn only_attestations_are_said_there() {
        let failure = Failure {
            action: ActionId::from_bytes([1; 32]),
            step: 1,
            ending: Ending::Trap,
            platform: Platform::here(Name::new("v8-1").unwrap()),
        };
        assert_eq!(statement(&signed(Body::Failed(failure)), None), Value::Null);
    }
}
