# services.drover.runs: each is a service with a timer, under a user of its own that is there only while it runs.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.drover;
  toToml = pkgs.callPackage ./toml.nix { };

  # Keys that name a file with a secret. systemd reads it, as root, and hands it to the one service.
  secrets = [
    "secret-key"
    "slack-file"
    "ssh-key"
    "token-file"
    "webhook-file"
  ];
  # Those of some settings, as attributes: a name such as `cache.acme.secret-key`, and the file.
  secretsOf =
    path: value:
    lib.concatMapAttrs (
      name: inner:
      let
        here = "${path}${name}";
      in
      if builtins.isAttrs inner then
        secretsOf "${here}." inner
      else
        lib.optionalAttrs (builtins.elem name secrets && inner != null) { ${here} = inner; }
    ) value;
  # The same settings, reading the secrets from where systemd puts them.
  handedOver =
    unit: path: value:
    lib.mapAttrs (
      name: inner:
      if builtins.isAttrs inner then
        handedOver unit "${path}${name}." inner
      else if builtins.elem name secrets && inner != null then
        "/run/credentials/${unit}.service/${path}${name}"
      else
        inner
    ) value;

  run =
    { name, ... }:
    {
      options = {
        flake = mkOption {
          type = types.strMatching "[a-z+]+:.*";
          example = "git+https://git.example.org/acme/infra?ref=main";
          description = "The flake, as a URL that Nix takes: it is fetched anew for each run.";
        };
        what = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [
            "web1"
            "checks"
          ];
          description = "Attrs of it; without any, those that `settings.attrs` says.";
        };
        command = mkOption {
          type = types.enum [
            "run"
            "check"
          ];
          default = "run";
          description = "`run` builds and pushes; `check` is the superset of `nix flake check`.";
        };
        arguments = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "--fail-fast" ];
          description = "More arguments.";
        };
        startAt = mkOption {
          type = types.either types.str (types.listOf types.str);
          default = "daily";
          example = "Mon..Fri 04:00";
          description = "When it runs, as systemd.time(7) has it; `[ ]`: only when somebody starts `drover-${name}.service`.";
        };
        randomizedDelay = mkOption {
          type = types.str;
          default = "10m";
          description = "It starts at some moment within this time, so that not all hosts ask at once.";
        };
        timeout = mkOption {
          type = types.str;
          default = "infinity";
          example = "6h";
          description = "How long it may take. What is done by then is pushed and on record.";
        };
        environmentFile = mkOption {
          type = types.nullOr (types.strMatching "/.*");
          default = null;
          example = "/run/secrets/drover.env";
          description = "A file with lines `NAME=VALUE`: the variables that settings name, and logins to caches.";
        };
        settings = mkOption {
          type = types.submodule ./options.nix;
          default = { };
          description = ''
            What would be in drover.toml. That of the repository is not read.
            Files with secrets need be readable only by root: systemd hands them to the service.
          '';
        };
      };
    };

  service =
    name: run:
    let
      unit = "drover-${name}";
      toml = toToml (handedOver unit "" run.settings);
      what = if run.what == [ ] then [ run.flake ] else map (attr: "${run.flake}#${attr}") run.what;
      metrics = pkgs.writeShellApplication {
        name = "${unit}-metrics";
        runtimeInputs = [
          cfg.package
          pkgs.coreutils
        ];
        # Renamed when it is whole: the collector may look at any moment.
        text = ''
          file=${lib.escapeShellArg "${cfg.metricsDirectory}/${unit}.prom"}
          drover report --format prometheus --output "$file.new"
          chmod 644 "$file.new"
          mv "$file.new" "$file"
        '';
      };
    in
    {
      description = "drover ${run.command}, ${name}";
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      path = [
        config.nix.package
        pkgs.gitMinimal
        pkgs.openssh
      ];
      environment = {
        DROVER_STATE_DIR = "%S/${unit}";
        HOME = "%S/${unit}";
        XDG_CACHE_HOME = "%C/${unit}";
      };
      serviceConfig = {
        Type = "oneshot";
        ExecStart = utils.escapeSystemdExecArgs (
          [
            (lib.getExe cfg.package)
            run.command
          ]
          ++ run.arguments
          ++ [ "--" ]
          ++ what
        );
        # drover looks for drover.toml here, since the flake is elsewhere.
        WorkingDirectory = pkgs.linkFarm "${unit}-settings" [
          {
            name = "drover.toml";
            path = toml;
          }
        ];
        StateDirectory = unit;
        CacheDirectory = unit;
        LoadCredential = lib.mapAttrsToList (id: file: "${id}:${file}") (secretsOf "" run.settings);
        TimeoutStartSec = run.timeout;
        # After a signal drover ends what it has begun, and says how far it got.
        TimeoutStopSec = "1min";

        DynamicUser = true;
        UMask = "0077";
        CapabilityBoundingSet = "";
        LockPersonality = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = "@system-service";
      }
      // lib.optionalAttrs (run.environmentFile != null) { EnvironmentFile = run.environmentFile; }
      // lib.optionalAttrs (cfg.metricsDirectory != null) {
        # Also after a run that failed.
        ExecStopPost = lib.getExe metrics;
        ReadWritePaths = [ cfg.metricsDirectory ];
        SupplementaryGroups = [ "drover-metrics" ];
      };
    };

  timer = name: run: {
    description = "When drover does ${name}";
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = run.startAt;
      Persistent = true;
      RandomizedDelaySec = run.randomizedDelay;
    };
  };

  # What would be done, and would not be what was meant.
  assertionsOf = name: run: [
    {
      assertion = !(lib.hasPrefix "path:" run.flake || lib.hasPrefix "git+file:" run.flake);
      message = "services.drover.runs.${name}.flake: of a flake on this machine, drover reads its own drover.toml, and not these settings";
    }
    {
      assertion = builtins.all (notify: notify.slack == null && notify.webhook == null) (
        builtins.attrValues run.settings.notify
      );
      message = "services.drover.runs.${name}.settings.notify: the URL of a webhook is a secret, and everybody can read the store; name a file: slack-file, webhook-file";
    }
  ];

  units = unit: lib.mapAttrs' (name: run: lib.nameValuePair "drover-${name}" (unit name run));
in
{
  options.services.drover = {
    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../nix/package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./nix/package.nix { }";
      description = "The drover that runs.";
    };
    metricsDirectory = mkOption {
      type = types.nullOr (types.strMatching "/.*");
      default = null;
      example = "/var/lib/node-exporter";
      description = "Where each run leaves its metrics, for the textfile collector of node_exporter.";
    };
    runs = mkOption {
      type = types.attrsOf (types.submodule run);
      default = { };
      description = "Runs of repositories, by name.";
    };
  };

  config = lib.mkIf (cfg.runs != { }) {
    assertions = lib.concatLists (lib.mapAttrsToList assertionsOf cfg.runs);

    systemd.services = units service cfg.runs;
    systemd.timers = units timer (lib.filterAttrs (_name: run: run.startAt != [ ]) cfg.runs);

    users.groups = lib.mkIf (cfg.metricsDirectory != null) { drover-metrics = { }; };
    systemd.tmpfiles.settings = lib.mkIf (cfg.metricsDirectory != null) {
      drover.${cfg.metricsDirectory}.d = {
        mode = "0775";
        group = "drover-metrics";
      };
    };
  };
}
