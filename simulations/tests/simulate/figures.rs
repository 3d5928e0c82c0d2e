use std::{env, fs, path::PathBuf};

use simulations::figures::{Extent, Figure};

use super::{repository, simulate};

fn kept(figure: Figure) -> PathBuf {
    repository().join("simulations/tests/figures").join(figure.name()).with_extension("svg")
}

/// Small figures are what they were, byte for byte. `SIMULATE_KEEP=1` keeps those that are drawn now.
#[test]
fn small_figures_are_drawn_again() {
    for figure in Figure::ALL {
        let drawn = figure.draw(Extent::Small).unwrap().svg();
        if env::var_os("SIMULATE_KEEP").is_some() {
            fs::write(kept(figure), &drawn).unwrap();
        }
        let before = fs::read_to_string(kept(figure)).unwrap();
        assert!(drawn == before, "{} is another one", figure.name());
    }
}

/// Every whole figure is kept and shown, and the program draws what the library does.
#[test]
fn figures_are_shown() {
    let manual = fs::read_to_string(repository().join("docs/simulations.md")).unwrap();
    for figure in Figure::ALL {
        let name = figure.name();
        let whole = fs::read_to_string(repository().join(format!("docs/figures/{name}.svg"))).unwrap();
        assert!(whole.starts_with("<svg ") && !whole.contains("<script"), "{name}");
        assert!(manual.contains(&format!("](figures/{name}.svg)")), "{name} is not shown");
    }
    let drawn = simulate(&["figure", "liars", "--small"]);
    let plot = Figure::Liars.draw(Extent::Small).unwrap();
    assert_eq!(String::from_utf8(drawn.stdout).unwrap(), plot.to_string());
    assert_eq!(simulate(&["figure", "nothing"]).status.code(), Some(2));
}
