use simulations::{invariants::Violation, trace::Trace, variant::Variant, world::World};

use super::scenario;

/// Seeds from which a mistake is looked for.
const SEEDS: u64 = 10;

/// Which scenario notices which mistake, and by what.
#[test]
fn broken_nodes_are_noticed() {
    for variant in Variant::ALL {
        let (name, expected): (_, fn(&Violation) -> bool) = match variant {
            Variant::ThresholdOffByOne => {
                ("quorum", |v| matches!(v, Violation::Quorum { have: 3, need: 4, .. }))
            }
            Variant::EquivocatorCounts => ("equivocators", |v| matches!(v, Violation::Equivocator { .. })),
            Variant::RevokedCounts => ("revocations", |v| matches!(v, Violation::Revoked { .. })),
            Variant::FollowsNobodyNew => {
                ("successions", |v| matches!(v, Violation::Differ { .. } | Violation::Stuck { .. }))
            }
            Variant::NeverAsksAgain => {
                ("partitions", |v| matches!(v, Violation::Differ { .. } | Violation::Stuck { .. }))
            }
            Variant::RelaysEverything => ("spammers", |v| matches!(v, Violation::Relayed { .. })),
            Variant::SpeaksBeforeDisk => ("crashes", |v| matches!(v, Violation::HonestEquivocator { .. })),
            Variant::BelievesForgeries => ("spammers", |v| {
                matches!(
                    v,
                    Violation::HonestEquivocator { .. } | Violation::Relayed { .. } | Violation::Wrong { .. }
                )
            }),
        };
        let scenario = scenario(name);
        let run = |seed, variant| World::new(&scenario, seed, variant, Trace::off()).run(None);
        let noticed: Vec<_> = (0..SEEDS).filter_map(|seed| run(seed, Some(variant)).err()).collect();
        assert!(
            noticed.iter().any(|failure| expected(&failure.violation)),
            "{} is not noticed by {name}: {noticed:?}",
            variant.name()
        );
        // By nothing else than the mistake.
        assert!((0..SEEDS).all(|seed| run(seed, None).is_ok()), "{name}");
    }
}
