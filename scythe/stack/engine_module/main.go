// Program scythe-engine is the Hatchet engine as `scythe dev` runs it: the engine and its REST
// API in one process that listens on the loopback interface only.
//
// The programs that Hatchet publishes bind the REST API and the health probe to every interface
// and have no setting for it. This one gives the API a listener of its own and leaves the health
// probe to the API; everything else is Hatchet's own code, unchanged.
//
// Settings come from the environment (DATABASE_URL, SERVER_...), as for Hatchet's own programs.
//
//	scythe-engine version                  print the version
//	scythe-engine keys DIR                 write the keys of a new instance to DIR
//	scythe-engine prepare DIR              create or upgrade the schema, add the tenant
//	scythe-engine token DIR NAME LIFETIME  print a client token, for example for 720h
//	scythe-engine serve DIR                run until SIGTERM or SIGINT
//	scythe-engine s3 DIR                   serve the objects in DIR by S3 until SIGTERM or SIGINT
//
// DIR is the configuration folder of the instance.
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

const usage = "usage: scythe-engine version | keys DIR | prepare DIR | token DIR NAME LIFETIME | serve DIR | s3 DIR"

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scythe-engine:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}

	switch {
	case name == "version" && len(args) == 1:
		fmt.Println(Version)
		return nil
	case name == "keys" && len(args) == 2:
		return keys(args[1])
	case name == "prepare" && len(args) == 2:
		return prepare(args[1])
	case name == "token" && len(args) == 4:
		return token(args[1], args[2], args[3])
	case name == "serve" && len(args) == 2:
		return serve(args[1])
	case name == "s3" && len(args) == 2:
		return serveS3(args[1])
	}

	return errors.New(usage)
}

// keys writes master.key, private.key and, when these are whole, public.key.
func keys(dir string) error {
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

// prepare brings the database to the state that this version needs.
func prepare(dir string) error {
	ctx, cancel := cmdutils.NewInterruptContext()
	defer cancel()

	if err := migrate.RunMigrations(ctx); err != nil {
		return err
	}

	layer, err := loader.NewConfigLoader(dir).InitDataLayer()
	if err != nil {
		return err
	}
	defer layer.Disconnect() //nolint:errcheck // the process ends here

	// The tenant needs an owner. Hatchet's default password is public, and nobody logs in with
	// one: clients have a token. The suffix meets Hatchet's rule for passwords.
	password, err := random.Generate(32)
	if err != nil {
		return err
	}

	layer.Seed.AdminPassword = password + "aA1"

	return seed.SeedDatabase(layer)
}

// token prints a new client token of the tenant; it holds the addresses in the settings.
func token(dir, name, lifetime string) error {
	duration, err := time.ParseDuration(lifetime)
	if err != nil {
		return err
	}

	closeServer, config, err := loader.NewConfigLoader(dir).CreateServerFromConfig(
		Version,
		func(file *server.ServerConfigFile) { file.MessageQueue.Enabled = false },
	)
	if err != nil {
		return err
	}
	defer closeServer()       //nolint:errcheck // the process ends here
	defer config.Disconnect() //nolint:errcheck // the process ends here

	tenant, err := uuid.Parse(config.Seed.DefaultTenantID)
	if err != nil {
		return err
	}

	expires := time.Now().UTC().Add(duration)

	made, err := config.Auth.JWTManager.GenerateTenantToken(context.Background(), tenant, name, false, &expires)
	if err != nil {
		return err
	}

	fmt.Println(made.Token)

	return nil
}
