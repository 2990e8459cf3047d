# A scheduled run as a hardened service pushes to a cache over HTTP; another machine then builds nothing.
{ self }:
let
  attrs = [
    "one"
    "two"
  ];
in
{
  name = "drover-push";

  nodes = {
    # A web server is a cache, if it takes what is put there. It also has the flake.
    cache =
      { pkgs, ... }:
      {
        networking.firewall.allowedTCPPorts = [ 80 ];
        services.nginx.enable = true;
        services.nginx.virtualHosts.cache = {
          root = "/var/lib/binary-cache";
          locations."/".extraConfig = ''
            client_max_body_size 0;
            create_full_put_path on;
            dav_methods PUT;
          '';
        };
        systemd.services.nginx.serviceConfig.StateDirectory = "binary-cache";
        environment.etc."fleet/flake.nix".source = import ./fleet.nix {
          inherit pkgs;
          names = attrs;
        };
      };

    maker = {
      imports = [
        self.nixosModules.default
        ./machine.nix
      ];
      services.drover.metricsDirectory = "/var/lib/node-exporter";
      services.drover.runs.nightly = {
        flake = "http://cache/fleet.tar.gz";
        startAt = [ ];
        settings.cache.ours = {
          url = "http://cache";
          push = true;
          secret-key = "/root/cache.sec";
        };
      };
    };

    reader = ./machine.nix;
  };

  testScript = ''
    import json

    start_all()
    cache.wait_for_unit("nginx.service")
    cache.succeed(
        "tar --dereference -C /etc -czf /var/lib/binary-cache/fleet.tar.gz fleet",
        "echo 'StoreDir: /nix/store' >/var/lib/binary-cache/nix-cache-info",
        "chown -R nginx: /var/lib/binary-cache",
    )
    maker.wait_for_unit("multi-user.target")
    reader.wait_for_unit("multi-user.target")
    maker.succeed("nix key generate-secret --key-name ours-1 >/root/cache.sec", "chmod 400 /root/cache.sec")

    with subtest("the service builds and pushes"):
        maker.succeed("systemctl start drover-nightly.service")
        maker.succeed("grep '^drover_' /var/lib/node-exporter/drover-nightly.prom")
        cache.succeed("ls /var/lib/binary-cache/*.narinfo")

    with subtest("another machine fetches"):
        key = maker.succeed("nix key convert-secret-to-public </root/cache.sec").strip()
        trust = f"--option substituters http://cache --option trusted-public-keys '{key}'"
        document = json.loads(reader.succeed(f"drover run http://cache/fleet.tar.gz --download --json {trust}"))
        assert [attr["status"] for attr in document["attrs"]] == ["cached"] * ${toString (builtins.length attrs)}, document
        for attr in document["attrs"]:
            reader.succeed(f"grep {attr['name']} {attr['outputs']['out']}")
  '';
}
