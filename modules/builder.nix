# services.drover.builder: this host builds for others, who log in with a key that can do nothing else.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.drover.builder;
  daemon = lib.getExe' config.nix.package "nix-daemon";
in
{
  options.services.drover.builder = {
    enable = lib.mkEnableOption "building for others over ssh";
    user = mkOption {
      type = types.str;
      default = "drover";
      description = "The user that others log in as: `ssh-ng://drover@this-host`.";
    };
    authorizedKeys = mkOption {
      type = types.listOf (types.strMatching "(ssh|ecdsa|sk)-[^\n]*");
      default = [ ];
      example = [ "ssh-ed25519 AAAA… ci" ];
      description = "Public keys of those who may. They reach this host's Nix daemon, and no shell.";
    };
    trusted = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether the daemon takes their word for paths that nobody signed. Who builds here from sources has to be
        trusted; who is not gets only what caches and signatures complete. A trusted user is as good as root.
      '';
    };
    maxJobs = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 16;
      description = "Builds at once; without it, what Nix is set to.";
    };
    features = mkOption {
      type = types.nullOr (types.listOf types.str);
      default = null;
      example = [
        "kvm"
        "big-parallel"
      ];
      description = "Features that it offers; without it, what Nix is set to.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.authorizedKeys != [ ];
        message = "services.drover.builder: nobody can log in; authorizedKeys = [ \"ssh-ed25519 AAAA… ci\" ]";
      }
    ];

    services.openssh.enable = true;

    users.groups.${cfg.user} = { };
    users.users.${cfg.user} = {
      isSystemUser = true;
      group = cfg.user;
      # sshd starts the command of the key with it.
      shell = pkgs.bash;
      openssh.authorizedKeys.keys = map (
        key: ''restrict,command="${daemon} --stdio" ${key}''
      ) cfg.authorizedKeys;
    };

    nix.settings = lib.mkMerge [
      (lib.mkIf cfg.trusted { trusted-users = [ cfg.user ]; })
      (lib.mkIf (cfg.maxJobs != null) { max-jobs = cfg.maxJobs; })
      (lib.mkIf (cfg.features != null) { system-features = cfg.features; })
    ];
  };
}
