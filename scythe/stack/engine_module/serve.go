package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/hatchet-dev/hatchet/api/v1/server/middleware/populator"
	"github.com/hatchet-dev/hatchet/api/v1/server/oas/gen"
	"github.com/hatchet-dev/hatchet/api/v1/server/run"
	"github.com/hatchet-dev/hatchet/cmd/hatchet-engine/engine"
	"github.com/hatchet-dev/hatchet/pkg/cleanup"
	"github.com/hatchet-dev/hatchet/pkg/config/loader"
	"github.com/hatchet-dev/hatchet/pkg/config/server"
)

// partitions are the tables in which engines divide the tenants among each other.
var partitions = []string{"ControllerPartition", "SchedulerPartition", "TenantWorkerPartition"}

// serve runs the engine and the API until the process is told to stop.
func serve(ctx context.Context, dir string) error {
	closeServer, config, err := loader.NewConfigLoader(dir).CreateServerFromConfig(
		Version,
		// The health probe binds to every interface; the API answers the same question.
		func(file *server.ServerConfigFile) { file.Runtime.Healthcheck = false },
	)
	if err != nil {
		return fmt.Errorf("could not load the configuration: %w", err)
	}

	if err := forgetOtherEngines(ctx, config); err != nil {
		return fmt.Errorf("could not forget earlier engines: %w", err)
	}

	api := make(chan func() error, 1)

	go func() {
		closeAPI, err := openWhenInCharge(ctx, config)
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "scythe-engine: could not start the API:", err)
			os.Exit(1)
		}

		api <- closeAPI
	}()

	steps := cleanup.New(config.Logger)

	if err := engine.RunWithConfig(ctx, config, &steps); err != nil {
		return fmt.Errorf("could not run the engine: %w", err)
	}

	if closeAPI := <-api; closeAPI != nil {
		steps.Add(closeAPI, "api")
	}

	steps.Add(closeServer, "server")
	steps.Add(config.Disconnect, "database")

	// It waits five seconds for other engines to take over; there are none.
	steps.Fns = slices.DeleteFunc(steps.Fns, func(step cleanup.CleanupFn) bool {
		return step.Name == "partitioner heartbeat timeout"
	})

	return steps.Run()
}

// forgetOtherEngines makes this engine the only one. There is one for each database; what the
// tables know of another one is left from an engine that was killed. Hatchet would leave that one
// its queues (leases) for half a minute and its share of the work (partitions) for a minute, and
// would send tasks to workers that have not found the new engine yet (dispatchers).
func forgetOtherEngines(ctx context.Context, config *server.ServerConfig) error {
	for _, table := range append([]string{"Lease", "Dispatcher"}, partitions...) {
		if _, err := config.Pool.Exec(ctx, fmt.Sprintf(`DELETE FROM %q`, table)); err != nil {
			return err
		}
	}

	return nil
}

// openWhenInCharge gives all the work to this engine, which Hatchet would do ten seconds after the
// start, and then opens the API: who sees it answer can run tasks at once.
func openWhenInCharge(ctx context.Context, config *server.ServerConfig) (func() error, error) {
	for _, table := range partitions {
		if err := awaitRow(ctx, config, table); err != nil {
			return nil, err
		}
	}

	tenants := config.V1.Tenant()

	for _, rebalance := range []func(context.Context) error{
		tenants.RebalanceAllControllerPartitions,
		tenants.RebalanceAllSchedulerPartitions,
		tenants.RebalanceAllTenantWorkerPartitions,
	} {
		if err := rebalance(ctx); err != nil {
			return nil, err
		}
	}

	return startAPI(config)
}

func awaitRow(ctx context.Context, config *server.ServerConfig, table string) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()

	for {
		var found bool

		query := fmt.Sprintf(`SELECT EXISTS (SELECT FROM %q)`, table)
		if err := config.Pool.QueryRow(ctx, query).Scan(&found); err != nil {
			return err
		}

		if found {
			return nil
		}

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// startAPI serves the REST API on loopback.
func startAPI(config *server.ServerConfig) (func() error, error) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(config.Runtime.Port))

	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}

	spec, err := gen.GetSwagger()
	if err != nil {
		return nil, err
	}

	// Hatchet calls an extension with a group of the API's echo instance just before that
	// instance starts; an instance that has a listener already opens none of its own.
	bind := func(group *echo.Group, _ *populator.Populator) error {
		owner := reflect.ValueOf(group).Elem().FieldByName("echo")
		if !owner.IsValid() || owner.Type() != reflect.TypeFor[*echo.Echo]() {
			return errors.New("this version of echo keeps the instance of a group elsewhere")
		}

		(*echo.Echo)(owner.UnsafePointer()).Listener = listener

		return nil
	}
	extension := func(*server.ServerConfig) (*openapi3.T, func(*echo.Group, *populator.Populator) error, error) {
		return spec, bind, nil
	}

	return run.NewAPIServer(config).Run(extension)
}
