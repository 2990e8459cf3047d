//! One small flake for each rule of `nix flake check`, as it should be and not.

/// A flake, the flags that it is checked with, and whether Nix finds nothing wrong with it.
pub(crate) struct Sample {
    /// Its name.
    pub(crate) name: &'static str,
    /// Nothing is wrong.
    pub(crate) good: bool,
    /// For `nix flake check` and for `drover check`.
    pub(crate) flags: &'static [&'static str],
    /// What is in its `outputs`; a whole `flake.nix` if it starts with a brace.
    pub(crate) text: &'static str,
}

/// `d NAME` builds, `bad NAME` does not, `far NAME` is for a system that nobody builds for here; `says NAME TEXT` is a
/// derivation whose output is that text.
pub(crate) const HELPERS: &str = r#"
  make = name: system: script: derivation { inherit name system; builder = "/bin/sh"; args = [ "-c" script ]; };
  d = name: make name "x86_64-linux" "echo > $out";
  bad = name: make name "x86_64-linux" "exit 3";
  far = name: make name "aarch64-linux" "echo > $out";
  says = name: text: make name "x86_64-linux" "echo '${text}' > $out";
"#;

const fn good(name: &'static str, text: &'static str) -> Sample {
    Sample { name, good: true, flags: &[], text }
}

const fn bad(name: &'static str, text: &'static str) -> Sample {
    Sample { name, good: false, flags: &[], text }
}

const fn with(flags: &'static [&'static str], sample: Sample) -> Sample {
    Sample { name: sample.name, good: sample.good, flags, text: sample.text }
}

const ALL_SYSTEMS: &[&str] = &["--all-systems"];
const NO_BUILD: &[&str] = &["--no-build"];

/// All of them.
pub(crate) const SAMPLES: &[Sample] = &[
    // The flake as a whole.
    good("nothing", ""),
    good("empty-sets", "packages = { }; checks.x86_64-linux = { }; nixosConfigurations = { };"),
    bad("outputs-throw", "{ outputs = _: throw \"no\"; }"),
    bad("outputs-no-set", "{ outputs = _: 1; }"),
    bad("syntax", "{ outputs = _: }"),
    bad("unknown-attribute", "{ foo = 1; outputs = _: { }; }"),
    bad("description-no-string", "{ description = 1; outputs = _: { }; }"),
    bad("input-missing", "{ inputs.x.url = \"path:/nonexistent\"; outputs = _: { }; }"),
    bad("config-list-of-numbers", "{ nixConfig.foo = [ 1 ]; outputs = _: { }; }"),
    bad("config-set", "{ nixConfig.foo = { }; outputs = _: { }; }"),
    bad("output-throws", "packages = throw \"no\";"),
    bad("abort", "packages.x86_64-linux.a = abort \"no\";"),
    bad("assertion", "packages.x86_64-linux.a = assert false; 1;"),
    bad("recursion", "packages.x86_64-linux.a = let x = x; in x;"),
    bad("deep-recursion", "packages.x86_64-linux.a = let f = n: 1 + f (n + 1); in f 0;"),
    bad(
        "impure",
        "packages.x86_64-linux.a = d (builtins.head (builtins.attrNames { ${builtins.currentSystem} = 1; }));",
    ),
    with(&["--impure"], good("impure-allowed", "packages.x86_64-linux.a = d (\"x\" + builtins.currentSystem);")),
    bad("input-of-nothing", "packages.x86_64-linux.a = d self.nothing;"),
    good("itself", "packages.x86_64-linux = { a = d \"a\"; b = self.packages.x86_64-linux.a; };"),
    good("warning", "packages.x86_64-linux.a = builtins.trace \"hm\" (d \"a\");"),
    good("warning-said", "packages.x86_64-linux.a = builtins.warn \"careful\" (d \"a\");"),
    // Systems.
    bad("system-name", "packages.foo.a = d \"a\";"),
    bad("system-name-of-formatter", "formatter.foo = d \"a\";"),
    bad("system-name-of-legacy", "legacyPackages.foo = { };"),
    bad("system-name-of-bundlers", "bundlers.foo = { };"),
    bad("system-name-of-apps", "apps.foo = { };"),
    bad("system-name-all", "packages.foo = { };"),
    good("other-system-throws", "packages.foo-bar.a = throw \"no\"; packages.\"x-\" = throw \"no\";"),
    good("other-system", "packages.aarch64-linux.a = far \"a\"; checks.aarch64-linux.a = far \"a\";"),
    with(ALL_SYSTEMS, bad("all-systems-throw", "packages.foo-bar.a = throw \"no\";")),
    with(ALL_SYSTEMS, bad("all-systems-wrong", "checks.aarch64-linux.a = 1;")),
    with(ALL_SYSTEMS, bad("all-systems-no-set", "packages.aarch64-linux = 1;")),
    with(
        ALL_SYSTEMS,
        good("all-systems-packages", "packages.aarch64-linux.a = far \"a\"; devShells.a-b.c = far \"c\";"),
    ),
    with(
        ALL_SYSTEMS,
        good("all-systems-checks", "checks.aarch64-linux.a = far \"a\"; checks.x86_64-linux.b = d \"b\";"),
    ),
    with(ALL_SYSTEMS, bad("all-systems-formatter", "formatter.aarch64-darwin = 1;")),
    with(ALL_SYSTEMS, bad("all-systems-app", "apps.aarch64-darwin.a = 1;")),
    // checks
    good("check", "checks.x86_64-linux.a = d \"check\";"),
    bad("check-fails", "checks.x86_64-linux.a = bad \"check-fails\";"),
    bad("check-one-fails", "checks.x86_64-linux = { a = d \"check-a\"; b = bad \"check-b\"; };"),
    bad("check-without-output", "checks.x86_64-linux.a = make \"check-none\" \"x86_64-linux\" \"true\";"),
    bad("check-for-other-system", "checks.x86_64-linux.a = far \"check-far\";"),
    bad("check-no-derivation", "checks.x86_64-linux.a = 1;"),
    bad("check-nested", "checks.x86_64-linux.a.b = d \"check-nested\";"),
    bad("checks-no-set", "checks = 1;"),
    bad("checks-of-system-no-set", "checks.x86_64-linux = 1;"),
    bad(
        "check-not-in-store",
        "checks.x86_64-linux.a = { type = \"derivation\"; name = \"x\"; drvPath = \"/x.drv\"; };",
    ),
    with(NO_BUILD, good("check-not-built", "checks.x86_64-linux.a = bad \"check-not-built\";")),
    with(NO_BUILD, bad("check-not-built-throws", "checks.x86_64-linux.a = throw \"no\";")),
    with(NO_BUILD, bad("check-not-built-wrong", "checks.x86_64-linux.a = 1;")),
    good("check-broken-meta", "checks.x86_64-linux.a = d \"check-meta\" // { meta.broken = true; };"),
    bad("check-name", "checks.x86_64-linux.a = d \"check-name\" // { name = 1; };"),
    // packages, devShells, formatter
    good("package", "packages.x86_64-linux.a = d \"package\";"),
    good("package-fails", "packages.x86_64-linux.a = bad \"package-fails\";"),
    good("package-for-other-system", "packages.x86_64-linux.a = far \"package-far\";"),
    good("package-quoted", "packages.x86_64-linux.\"a b\" = d \"a\"; packages.x86_64-linux.\"c.d\" = d \"c\";"),
    bad("package-quoted-wrong", "packages.x86_64-linux.\"a.b\" = 1;"),
    bad("packages-no-set", "packages = 1;"),
    bad("packages-list", "packages.x86_64-linux = [ (d \"a\") ];"),
    bad("package-no-derivation", "packages.x86_64-linux.a = { };"),
    bad("package-function", "packages.x86_64-linux.a = x: d \"a\";"),
    bad("package-bare", "packages.x86_64-linux.a = { type = \"derivation\"; };"),
    bad("package-drv-path-throws", "packages.x86_64-linux.a = d \"a\" // { drvPath = throw \"no\"; };"),
    bad("package-drv-path-elsewhere", "packages.x86_64-linux.a = d \"a\" // { drvPath = \"/x\"; };"),
    bad("package-name-throws", "packages.x86_64-linux.a = d \"a\" // { name = throw \"no\"; };"),
    good("package-out-path-throws", "packages.x86_64-linux.a = d \"a\" // { outPath = throw \"no\"; };"),
    good("package-outputs-throw", "packages.x86_64-linux.a = d \"a\" // { outputs = throw \"no\"; };"),
    good("package-system-throws", "packages.x86_64-linux.a = d \"a\" // { system = throw \"no\"; };"),
    good("package-meta-throws", "packages.x86_64-linux.a = d \"a\" // { meta = throw \"no\"; };"),
    good("dev-shell", "devShells.x86_64-linux.default = d \"shell\";"),
    bad("dev-shell-no-derivation", "devShells.x86_64-linux.default = { };"),
    good("formatter", "formatter.x86_64-linux = d \"fmt\";"),
    bad("formatter-no-derivation", "formatter.x86_64-linux = 1;"),
    bad("formatter-nested", "formatter.x86_64-linux.a = d \"fmt\";"),
    // What is imported from derivations.
    good("import", "packages.x86_64-linux.a = d (import (says \"a.nix\" \"\\\"b\\\"\"));"),
    bad("import-fails", "packages.x86_64-linux.a = d (import (bad \"b.nix\"));"),
    bad("import-throws", "packages.x86_64-linux.a = d (import (says \"c.nix\" \"throw 1\"));"),
    bad("import-of-other-system", "packages.x86_64-linux.a = d (import (far \"d.nix\"));"),
    with(
        &["--option", "allow-import-from-derivation", "false"],
        bad("import-forbidden", "packages.x86_64-linux.a = d (import (says \"e.nix\" \"\\\"e\\\"\"));"),
    ),
    // apps
    good(
        "app",
        "apps.x86_64-linux.a = { type = \"app\"; program = \"${d \"app\"}/bin/x\"; meta.description = \"x\"; };",
    ),
    good("app-without-meta", "apps.x86_64-linux.a = { type = \"app\"; program = \"${d \"app\"}\"; };"),
    good(
        "app-without-description",
        "apps.x86_64-linux.a = { type = \"app\"; program = \"${d \"app\"}\"; meta = { }; };",
    ),
    good("app-of-other-type", "apps.x86_64-linux.a = { type = \"no app\"; program = \"${d \"app\"}\"; };"),
    good("app-outside-the-store", "apps.x86_64-linux.a = { type = \"app\"; program = \"/bin/sh\"; };"),
    good("app-from-source", "apps.x86_64-linux.a = { type = \"app\"; program = \"${./flake.nix}\"; };"),
    bad("app-without-type", "apps.x86_64-linux.a = { program = \"/bin/sh\"; };"),
    bad("app-without-program", "apps.x86_64-linux.a = { type = \"app\"; };"),
    bad("app-with-more", "apps.x86_64-linux.a = { type = \"app\"; program = \"/bin/sh\"; foo = 1; };"),
    bad("app-number", "apps.x86_64-linux.a = { type = \"app\"; program = 1; };"),
    bad("app-derivation", "apps.x86_64-linux.a = { type = \"app\"; program = d \"a\"; };"),
    bad("app-path", "apps.x86_64-linux.a = { type = \"app\"; program = ./flake.nix; };"),
    bad("app-meta-no-set", "apps.x86_64-linux.a = { type = \"app\"; program = \"/bin/sh\"; meta = 1; };"),
    bad("app-description", "apps.x86_64-linux.a = { type = \"app\"; program = \"/bin/sh\"; meta.description = 1; };"),
    bad("app-no-set", "apps.x86_64-linux.a = d: d;"),
    bad("app-type-throws", "apps.x86_64-linux.a = { type = throw \"no\"; program = \"/bin/sh\"; };"),
    // overlays
    good("overlay", "overlays.a = final: prev: { };"),
    good("overlay-underscore", "overlays.a = _: prev: { };"),
    good("overlay-underscore-final", "overlays.a = _final: _prev: 1;"),
    good("overlay-not-applied", "overlays.a = final: throw \"no\";"),
    bad("overlay-other-name", "overlays.a = self: super: { };"),
    bad("overlay-swapped", "overlays.a = prev: final: { };"),
    bad("overlay-pattern", "overlays.a = { final }: prev: { };"),
    bad("overlay-named-pattern", "overlays.a = final@{ ... }: prev: { };"),
    bad("overlay-no-function", "overlays.a = 1;"),
    bad("overlay-functor", "overlays.a = { __functor = _: final: prev: { }; };"),
    bad("overlay-primop", "overlays.a = builtins.add;"),
    bad("overlay-throws", "overlays.a = throw \"no\";"),
    bad("overlays-function", "overlays = final: prev: { };"),
    // Modules and hosts.
    good("module", "nixosModules.a = 1; nixosModules.b = { config, ... }: { imports = throw \"no\"; };"),
    bad("module-throws", "nixosModules.a = throw \"no\";"),
    bad("modules-no-set", "nixosModules = 1;"),
    good("host", "nixosConfigurations.a.config.system.build.toplevel = d \"host\";"),
    good("host-fails", "nixosConfigurations.a.config.system.build.toplevel = bad \"host-fails\";"),
    good("host-of-other-system", "nixosConfigurations.a.config.system.build.toplevel = far \"host-far\";"),
    good(
        "host-drv-path-throws",
        "nixosConfigurations.a.config.system.build.toplevel = { type = \"derivation\"; drvPath = throw \"no\"; };",
    ),
    bad("host-empty", "nixosConfigurations.a = { };"),
    bad("host-function", "nixosConfigurations.a = _: { };"),
    bad("host-throws", "nixosConfigurations.a = throw \"no\";"),
    bad("host-assertion", "nixosConfigurations.a.config.system.build.toplevel = assert false; 1;"),
    bad("host-no-derivation", "nixosConfigurations.a.config.system.build.toplevel = 1;"),
    bad("host-one-of-two", "nixosConfigurations = { a.config.system.build.toplevel = d \"h\"; b = throw \"no\"; };"),
    bad("hosts-no-set", "nixosConfigurations = 1;"),
    // hydraJobs
    good("job", "hydraJobs.a.b = d \"job\"; hydraJobs.c = { };"),
    good("job-fails", "hydraJobs.a = bad \"job-fails\"; hydraJobs.b = far \"job-far\";"),
    bad("jobs-derivation", "hydraJobs = d \"job\";"),
    bad("job-number", "hydraJobs.a = 1;"),
    bad("job-recurse", "hydraJobs = { recurseForDerivations = true; a = d \"job\"; };"),
    bad("job-not-recursed", "hydraJobs.a = { recurseForDerivations = false; b = d \"job\"; };"),
    bad("job-throws", "hydraJobs = { a = d \"job\"; b.c = throw \"no\"; };"),
    bad("job-drv-path-throws", "hydraJobs.a = d \"job\" // { drvPath = throw \"no\"; };"),
    bad("job-imports", "hydraJobs.a = d (import (says \"job.nix\" \"\\\"b\\\"\"));"),
    bad("job-set-imports", "hydraJobs.a = import (says \"jobs.nix\" \"{ }\");"),
    // legacyPackages
    good("legacy", "legacyPackages.x86_64-linux.a = throw \"no\";"),
    good("legacy-not-forced", "legacyPackages.x86_64-linux = throw \"no\"; legacyPackages.a-b = 1;"),
    bad("legacy-no-set", "legacyPackages = 1;"),
    // templates
    good("template", "templates.a = { path = ./.; description = \"x\"; welcomeText = \"y\"; };"),
    good("template-file", "templates.a = { path = ./flake.nix; description = \"x\"; };"),
    good("template-text", "templates.a = { path = \"${./.}\"; description = \"x\"; };"),
    good("template-welcome-number", "templates.a = { path = ./.; description = \"x\"; welcomeText = 1; };"),
    bad("template-without-path", "templates.a = { description = \"x\"; };"),
    bad("template-without-description", "templates.a = { path = ./.; };"),
    bad("template-path-missing", "templates.a = { path = ./nope; description = \"x\"; };"),
    bad("template-path-outside", "templates.a = { path = \"/nonexistent\"; description = \"x\"; };"),
    bad("template-with-more", "templates.a = { path = ./.; description = \"x\"; foo = 1; };"),
    bad("template-description-number", "templates.a = { path = ./.; description = 1; };"),
    bad("template-description-refers", "templates.a = { path = ./.; description = \"${./flake.nix}\"; };"),
    bad("template-no-set", "templates.a = 1;"),
    bad("templates-no-set", "templates = 1;"),
    // bundlers
    good("bundler", "bundlers.x86_64-linux = { a = x: x; b = { c }: c; };"),
    bad("bundler-number", "bundlers.x86_64-linux.a = 1;"),
    bad("bundler-functor", "bundlers.x86_64-linux.a = { __functor = s: x: x; };"),
    // Old names.
    good(
        "old-names",
        "defaultPackage.x86_64-linux = d \"a\"; devShell.x86_64-linux = d \"a\"; overlay = final: prev: { }; \
         defaultApp.x86_64-linux = { type = \"app\"; program = \"/bin/sh\"; }; nixosModule = { }; \
         defaultBundler.x86_64-linux = x: x; defaultTemplate = { path = ./.; description = \"x\"; };",
    ),
    good("old-names-of-other-systems", "defaultPackage.aarch64-linux = 1; devShell.aarch64-linux = throw \"no\";"),
    bad("default-package", "defaultPackage.x86_64-linux = 1;"),
    bad("default-package-throws", "defaultPackage.x86_64-linux = throw \"no\";"),
    bad("dev-shell-old", "devShell.x86_64-linux = 1;"),
    bad("dev-shell-old-no-set", "devShell = 1;"),
    bad("default-app", "defaultApp.x86_64-linux = { };"),
    bad("default-bundler", "defaultBundler = 1;"),
    bad("default-template", "defaultTemplate = { path = ./.; };"),
    bad("overlay-old", "overlay = self: super: { };"),
    bad("module-old-throws", "nixosModule = throw \"no\";"),
    // What Nix does not look into, and names that it does not know.
    good(
        "not-looked-into",
        "lib = 1; darwinConfigurations = 1; homeConfigurations = 1; nixopsConfigurations = 1; flakeModules = 1; \
         herculesCI = 1; homeModules = 1; darwinModules = 1; flakeModule = 1; homeModule = 1;",
    ),
    good(
        "not-looked-into-deeply",
        "lib.a = throw \"no\"; homeConfigurations.a = throw \"no\"; darwinConfigurations.a = 1;",
    ),
    good("unknown", "foo = 1; schemas.a = throw \"no\"; nixosTests = { };"),
    good("unknown-quoted", "\"weird name\" = 1; \"if\" = 2;"),
    bad("unknown-throws", "foo = throw \"no\";"),
    bad("unknown-quoted-throws", "\"weird name\" = throw \"no\";"),
    bad("lib-throws", "lib = throw \"no\";"),
    bad("home-throws", "homeConfigurations = throw \"no\";"),
    bad("darwin-throws", "darwinConfigurations = throw \"no\";"),
    // Several at once.
    bad("many-wrong", "packages.x86_64-linux = { a = throw \"a\"; b = 1; c = d \"c\"; }; overlays.x = 1; foo = 1;"),
    good(
        "many-right",
        "packages.x86_64-linux = { a = d \"a\"; b = d \"b\"; }; checks.x86_64-linux.a = d \"a\"; overlays.x = final: 1; \
         foo = 1; overlay = final: 1; apps.x86_64-linux.a = { type = \"app\"; program = \"/bin/sh\"; }; lib.x = 1;",
    ),
];
