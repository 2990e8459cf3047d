//! Derivations by number, made as text: the same each time and of any count.
//!
//! As in a real package set, each needs about seven others, most of what is needed is among the first, one of five has
//! two outputs, and the longest chain does not grow with the set.

use drover::id::{StoreDir, StorePath};

/// Drvs of which each needs the one before.
const SPINE: usize = 100;

/// Drvs that most others need.
const COMMON: usize = 200;

/// Numbers that look random and are the same each time (splitmix64).
pub(crate) fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A base name whose hash is another for each number.
fn basename(number: u64, name: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let halves = [mixed(number << 1), mixed(number << 1 | 1)];
    let digit = |at: usize| char::from(DIGITS[(halves[at / 12 % 2] >> (at % 12 * 5) & 31) as usize]);
    // A hash has 160 bits, the first of which is never set in a digit of its own.
    format!("0{}-{name}", (0..31).map(digit).collect::<String>())
}

/// A path of the store by number.
pub(crate) fn path(number: u64, name: &str) -> StorePath {
    StorePath::from_basename(basename(number, name).as_bytes()).unwrap()
}

/// The drvs that one needs, in order and each once.
pub(crate) fn inputs(drv: usize) -> Vec<usize> {
    let mut inputs = Vec::new();
    if drv > 0 && drv < SPINE {
        inputs.push(drv - 1);
    }
    let random = |at: usize| mixed((drv as u64) << 8 | at as u64) as usize;
    for at in 0..(random(255) % 13 + 1).min(drv) {
        let below = if random(at) % 3 == 0 { drv } else { drv.min(COMMON) };
        inputs.push(random(at + 64) % below);
    }
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}

/// One drv of a set. Sets of another `salt` have the same drvs with other paths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drv {
    pub(crate) number: usize,
    pub(crate) salt: u64,
}

impl Drv {
    fn name(self) -> String {
        format!("package-{}-1.{}", self.number, self.number % 30)
    }

    fn key(self, what: u64) -> u64 {
        (self.number as u64) << 8 | self.salt << 4 | what
    }

    /// Its .drv.
    pub(crate) fn path(self) -> StorePath {
        path(self.key(0), &format!("{}.drv", self.name()))
    }

    /// The path of an output.
    pub(crate) fn output(self, name: &str) -> StorePath {
        match name {
            "out" => path(self.key(1), &self.name()),
            other => path(self.key(2), &format!("{}-{other}", self.name())),
        }
    }

    /// Its outputs by name.
    pub(crate) fn outputs(self) -> &'static [&'static str] {
        if self.number.is_multiple_of(5) { &["dev", "out"] } else { &["out"] }
    }

    /// The text of its .drv, some 2 KB.
    pub(crate) fn text(self) -> String {
        let dir = StoreDir::default();
        let shown = |path: &StorePath| dir.render_path(path);
        let source = shown(&path(u64::MAX >> 2, "builder.sh"));
        let output = |name: &&str| format!("(\"{name}\",\"{}\",\"\",\"\")", shown(&self.output(name)));
        let outputs: Vec<String> = self.outputs().iter().map(output).collect();
        let of = |number: usize| Self { number, ..self };
        let mut needs: Vec<String> = inputs(self.number).into_iter().map(|at| shown(&of(at).path())).collect();
        needs.sort();
        let needs: Vec<String> = needs.into_iter().map(|path| format!("(\"{path}\",[\"out\"])")).collect();
        let built: Vec<String> = inputs(self.number).into_iter().map(|at| shown(&of(at).output("out"))).collect();
        let mut variables = vec![
            ("buildInputs".to_owned(), built.join(" ")),
            ("buildPhase".to_owned(), PHASE.repeat(4)),
            ("name".to_owned(), self.name()),
            ("outputs".to_owned(), self.outputs().join(" ")),
        ];
        // What differs between two sets begins here, and is in the paths of all others.
        if self.number == 0 {
            variables.push(("salt".to_owned(), self.salt.to_string()));
        }
        variables.extend(self.outputs().iter().map(|name| ((*name).to_owned(), shown(&self.output(name)))));
        variables.sort();
        let variables: Vec<String> =
            variables.iter().map(|(name, value)| format!("(\"{name}\",\"{value}\")")).collect();
        format!(
            "Derive([{}],[{}],[\"{source}\"],\"x86_64-linux\",\"/bin/sh\",[\"-e\",\"{source}\"],[{}])",
            outputs.join(","),
            needs.join(","),
            variables.join(",")
        )
    }
}

const PHASE: &str = "runHook preBuild\\nlocal flagsArray=(\\n  ${enableParallelBuilding:+-j${NIX_BUILD_CORES}}\\n  \
    SHELL=$SHELL\\n)\\nconcatTo flagsArray makeFlags makeFlagsArray buildFlags buildFlagsArray\\nmake \
    ${makefile:+-f $makefile} ${flagsArray[@]}\\nunset flagsArray\\nrunHook postBuild\\n";
