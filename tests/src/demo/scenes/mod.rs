//! The scenes in the order in which they play, and what each needs before it.
//! Knows no step of any scene.

mod bus;
mod calls;
mod catch_up;
mod changes;
mod multicast;
mod outage;
mod provision;
mod register;
mod reload;

use crate::stage::Stage;

/// One scene.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Its name, as in `SCENE=name`.
    pub(crate) name: &'static str,
    /// One line about it.
    pub(crate) what: &'static str,
    /// Names of the scenes that must have played.
    needs: &'static [&'static str],
    /// Plays it.
    pub(crate) play: fn(&mut Stage),
}

impl Scene {
    /// Whether the scene `name` needs this one.
    pub(crate) fn needed_by(&self, name: &str) -> bool {
        SCENES
            .iter()
            .any(|scene| scene.name == name && scene.needs.contains(&self.name))
    }
}

/// All scenes.
pub(crate) const SCENES: &[Scene] = &[
    Scene {
        name: "provision",
        what: "addresses-of-record come in through the API and reach both nodes",
        needs: &[],
        play: provision::play,
    },
    Scene {
        name: "register",
        what: "phones register with digest authentication through node 1",
        needs: &[],
        play: register::play,
    },
    Scene {
        name: "calls",
        what: "everybody is called through node 2, by redirect and by proxy",
        needs: &["register"],
        play: calls::play,
    },
    Scene {
        name: "multicast",
        what: "phones register anew; what they change is sent once, sealed, to a group that loses 5 %",
        needs: &[],
        play: multicast::play,
    },
    Scene {
        name: "outage",
        what: "locsvc stops for longer than every expiry; the nodes go on answering",
        needs: &["register"],
        play: outage::play,
    },
    Scene {
        name: "changes",
        what: "records change one by one; both tables are compared with the API",
        needs: &["provision", "register"],
        play: changes::play,
    },
    Scene {
        name: "catch-up",
        what: "node 2's agent stops; its Kamailio goes on; the agent catches up",
        needs: &["provision", "register"],
        play: catch_up::play,
    },
    Scene {
        name: "reload",
        what: "the greatest delta and the smallest full reload, both under calls",
        needs: &["provision", "register"],
        play: reload::play,
    },
    Scene {
        name: "bus",
        what: "boards in one chassis: no network between them and locsvc, only buses A and B",
        needs: &[],
        play: bus::play,
    },
];
