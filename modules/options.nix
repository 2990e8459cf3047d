# drover.toml as options of a module: one option a key, under the same name. `null`, the default of all that may be left
# out, is what the file does not say.
{ lib, ... }:
let
  inherit (lib) mkOption types;

  optional =
    type: example: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit example description;
    };
  required =
    type: example: description:
    mkOption { inherit type example description; };
  named =
    description: options:
    mkOption {
      type = types.attrsOf (types.submodule { inherit options; });
      default = { };
      inherit description;
    };

  text = types.str;
  texts = types.listOf text;
  share = types.numbers.between 0 1;
  # A file that is read when drover runs. A text, so that no secret comes to be in the store.
  file = types.strMatching "/.*";
in
{
  options = {
    attrs = {
      kinds = optional texts [
        "nixosConfigurations"
        "checks"
      ] "Flake outputs that are taken when nobody asks for anything.";
      only = optional texts [ "web*" ] "Globs: of all attrs, only those that match one are taken.";
      exclude = optional texts [
        "*.installer"
        "checks.*.vm-*"
      ] "Globs: attrs that match one are left out. `*` stays within a part of the name, `**` does not.";
      systems = optional texts [
        "x86_64-linux"
      ] "Systems; without it, those that some builder can build.";
    };

    eval = {
      workers = optional types.ints.positive 4 "Evaluator processes.";
      max-memory = optional text "8GiB" "What all evaluators together may take.";
    };

    build = {
      timeout =
        optional types.ints.unsigned 7200
          "Seconds that a build may take; without it, what Nix says.";
      max-silent-time =
        optional types.ints.unsigned 600
          "Seconds that a build may be silent; without it, what Nix says.";
      retries =
        optional types.ints.unsigned 2
          "How often a build is tried again after a failure that trying again may mend.";
      max-log-size = optional types.ints.unsigned 67108864 "Bytes that a build may print; 0 is no limit.";
      max-jobs =
        optional types.ints.unsigned 8
          "Builds at once in the local store; 0: it builds nothing.";
      builder-wait =
        optional types.ints.unsigned 120
          "Seconds that what only one builder can build waits for it while it is away.";
      keep-days = optional types.ints.unsigned 7 "Days that a builder keeps what could not be pushed.";
    };

    cache = named "Caches beside those that Nix already names, by name." {
      url =
        required text "cachix:acme"
          "Where it is: `cachix:CACHE`, `attic:[SERVER:]CACHE`, `niks3:https://HOST`, `s3://BUCKET`, `https://HOST`, `file:///DIR` or `nix:STORE-URL`, with Nix's parameters.";
      push =
        optional
          (types.either types.bool (
            types.enum [
              "optional"
              "main"
            ]
          ))
          true
          "Whether it is pushed to. `\"optional\"`: a failed push is a warning; `\"main\"`: only from the default branch.";
      public-keys = optional texts [ "acme-1:…" ] "Public keys that may have signed its paths.";
      secret-key = optional file "/etc/nix/acme.sec" "File with the secret key to sign with.";
      token-file = optional file "/run/secrets/acme" "File with a token that is sent with every request.";
      priority = optional types.int 30 "Lower is asked first.";
      compression = optional (types.enum [
        "zstd"
        "none"
      ]) "zstd" "How what is pushed is compressed.";
      skip-larger-than = optional text "2GiB" "Larger paths are not pushed.";
      skip-names = optional texts [ "*-source" ] "Globs: paths whose names match one are not pushed.";
      skip-licenses = optional texts [
        "unfree"
      ] "Refused, with the reason: a path does not say its licence.";
    };

    builder = named "Hosts that build, beside those that Nix already names, by name." {
      url =
        required text "ssh-ng://ci@big1.acme.net"
          "How it is reached: `ssh-ng://USER@HOST`, or `unix:///PATH` of a daemon's socket, with Nix's parameters.";
      host-key =
        optional text "ssh-ed25519 AAAA…"
          "The host's public key, as ssh-keyscan prints it; without it, the host has to be known to ssh.";
      max-jobs =
        optional types.ints.unsigned 16
          "Builds at once; 0: it is not used. Without it, the host is asked.";
      systems = optional texts [ "x86_64-linux" ] "What it builds; without it, the host is asked.";
      features = optional texts [
        "kvm"
        "big-parallel"
      ] "Features that drvs may require; without it, the host is asked.";
      mandatory-features = optional texts [ "gpu" ] "It takes only drvs that require these.";
      speed = optional (types.numbers.nonnegative) 2 "How fast it is beside one with 1.";
      ssh-key = optional file "/etc/nix/ci" "File with the private key to log in with.";
      ssh-key-env = optional text "CI_KEY" "The variable that holds that key itself.";
    };

    skip.paths = optional texts [
      "docs/**"
      "*.md"
    ] "Globs of files in the repository: a change of nothing but these is taken to affect no attr.";

    share = {
      url =
        optional text "https://cache.example.org"
          "Where records of evaluations and of runs are shared.";
      public-keys = optional texts [ "acme-1:…" ] "Public keys that may have signed them.";
      secret-key = optional file "/etc/nix/acme.sec" "File with the secret key to sign with.";
      token-file = optional file "/run/secrets/acme" "File with a token that is sent with every request.";
    };

    quarantine = named "Attrs that may fail for a while, by a name for the reason." {
      attr = required text "checks.*.vm-*" "A glob of attrs.";
      reason = required text "needs nested kvm" "Why they may fail.";
      ticket = optional text "https://git.example.org/infra/17" "Where that is worked on.";
      expires =
        required (types.strMatching "[0-9]{4}-[0-9]{2}-[0-9]{2}") "2026-12-24"
          "The first day on which failures count again.";
    };

    goals = {
      hit-rate = optional share 0.9 "At least: the share of paths that caches had.";
      duration = optional text "10m" "At most: how long a run takes.";
      success-rate = optional share 0.95 "At least: the share of runs that end well.";
      recovery =
        optional text "2m"
          "At most: how long it takes until what failed for no fault of its own is built.";
      first-failure = optional text "3m" "At most: how long it takes until the first failure is told.";
    };

    notify =
      named
        "Who is told once when runs begin to fail, and once when they no longer do. Each is one of slack, webhook and command."
        {
          slack =
            optional text "https://hooks.example.org/services/…"
              "URL of a webhook that takes what Slack's do. It is a secret: rather name a file or a variable.";
          slack-env = optional text "SLACK_WEBHOOK" "The variable that holds it.";
          slack-file = optional file "/run/secrets/slack" "The file that holds it.";
          webhook =
            optional text "https://ops.example.org/drover"
              "URL of a webhook that takes drover's own document. It is a secret: rather name a file or a variable.";
          webhook-env = optional text "DROVER_WEBHOOK" "The variable that holds it.";
          webhook-file = optional file "/run/secrets/webhook" "The file that holds it.";
          token-env =
            optional text "DROVER_WEBHOOK_TOKEN"
              "The variable with a token that is sent to the webhook.";
          token-file = optional file "/run/secrets/webhook-token" "The file with that token.";
          command = optional texts [
            "mail"
            "ops@example.org"
          ] "A program with its arguments; it reads the document on its standard input.";
          on = optional (types.listOf (
            types.enum [
              "failure"
              "recovery"
            ]
          )) [ "failure" ] "Of what; without it, of both.";
          branches = optional texts [ "main" ] "Only of runs of these branches.";
        };
  };
}
