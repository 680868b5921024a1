// Program scythe-engine is the Hatchet engine as `scythe dev` runs it: the engine and its REST
// API in one process that listens on the loopback interface only.
//
// The programs that Hatchet publishes bind the REST API and the health probe to every interface
// and have no setting for it. This one gives the API a listener of its own and leaves the health
// probe to the API; everything else is Hatchet's own code, unchanged.
//
// Settings come from the environment (DATABASE_URL, SERVER_...), as for Hatchet's own programs.
//
//	scythe-engine version               print of which version and sources it is
//	scythe-engine prepare DIR LIFETIME  make what is missing of keys, schema and tenant in DIR
//	                                    and the database; print a client token, unless it
//	                                    would be valid for 0s
//	scythe-engine serve DIR             run until SIGTERM or SIGINT
//	scythe-engine s3 DIR                serve the objects in DIR by S3 until SIGTERM or SIGINT
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/hatchet-dev/hatchet/cmd/hatchet-admin/cli/seed"
	"github.com/hatchet-dev/hatchet/cmd/hatchet-migrate/migrate"
	"github.com/hatchet-dev/hatchet/pkg/cmdutils"
	"github.com/hatchet-dev/hatchet/pkg/config/loader"
	"github.com/hatchet-dev/hatchet/pkg/config/server"
	"github.com/hatchet-dev/hatchet/pkg/encryption"
	"github.com/hatchet-dev/hatchet/pkg/random"
)

// Version is set by the linker. Clients read it to decide which protocol to speak, so it must be
// the version of the Hatchet module.
var Version = "unset"

// Build is set by the linker: the version, the system, and a digest of the sources.
var Build = "unset"

func main() {
	ctx, cancel := cmdutils.NewInterruptContext()
	defer cancel()

	err := errors.New("usage: scythe-engine version | prepare DIR LIFETIME | serve DIR | s3 DIR")

	switch args := append(os.Args[1:], "", ""); args[0] {
	case "version":
		_, err = fmt.Println(Build)
	case "prepare":
		err = prepare(ctx, args[1], args[2])
	case "serve":
		err = serve(ctx, args[1])
	case "s3":
		err = serveS3(ctx, args[1])
	}

	if err != nil {
		fmt.Fprintln(os.Stderr, "scythe-engine:", err)
		os.Exit(1)
	}
}

// writeKeys writes master.key, private.key and, when these are whole, public.key.
func writeKeys(dir string) error {
	master, private, public, _, err := encryption.GenerateLocalKeys()
	if err != nil {
		return fmt.Errorf("could not make keys: %w", err)
	}

	for i, name := range []string{"master.key", "private.key", "public.key"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file+".new", [][]byte{master, private, public}[i], 0o600); err != nil {
			return err
		}

		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}

	return nil
}

// prepare brings keys and database to the state that this version needs, and prints a new token
// for clients, which holds the addresses in the settings.
func prepare(ctx context.Context, dir, lifetime string) error {
	valid, err := time.ParseDuration(lifetime)
	if err != nil {
		return err
	}

	if _, err := os.Stat(filepath.Join(dir, "public.key")); err != nil {
		if err := writeKeys(dir); err != nil {
			return err
		}
	}

	if err := migrate.RunMigrations(ctx); err != nil {
		return err
	}

	closeServer, config, err := loader.NewConfigLoader(dir).CreateServerFromConfig(
		Version,
		func(file *server.ServerConfigFile) { file.MessageQueue.Enabled = false },
	)
	if err != nil {
		return fmt.Errorf("could not load the configuration: %w", err)
	}
	defer closeServer()       //nolint:errcheck // the process ends here
	defer config.Disconnect() //nolint:errcheck // the process ends here

	// The tenant needs an owner. Hatchet's default password is public, and nobody logs in with
	// one: clients have a token. The suffix meets Hatchet's rule for passwords.
	password, err := random.Generate(32)
	if err != nil {
		return err
	}

	config.Seed.AdminPassword = password + "aA1"
	if err := seed.SeedDatabase(config.Layer); err != nil || valid == 0 {
		return err
	}

	tenant, err := uuid.Parse(config.Seed.DefaultTenantID)
	if err != nil {
		return err
	}

	expires := time.Now().UTC().Add(valid)

	made, err := config.Auth.JWTManager.GenerateTenantToken(ctx, tenant, "scythe-dev", false, &expires)
	if err != nil {
		return err
	}

	_, err = fmt.Println(made.Token)

	return err
}
