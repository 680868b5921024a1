package main

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"strconv"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/hatchet-dev/hatchet/api/v1/server/middleware/populator"
	"github.com/hatchet-dev/hatchet/api/v1/server/oas/gen"
	"github.com/hatchet-dev/hatchet/api/v1/server/run"
	"github.com/hatchet-dev/hatchet/cmd/hatchet-engine/engine"
	"github.com/hatchet-dev/hatchet/pkg/cleanup"
	"github.com/hatchet-dev/hatchet/pkg/cmdutils"
	"github.com/hatchet-dev/hatchet/pkg/config/loader"
	"github.com/hatchet-dev/hatchet/pkg/config/server"
)

// serve runs the engine and the API until the process is told to stop.
func serve(dir string) error {
	ctx, cancel := cmdutils.NewInterruptContext()
	defer cancel()

	closeServer, config, err := loader.NewConfigLoader(dir).CreateServerFromConfig(
		Version,
		// The health probe binds to every interface; the API answers the same question.
		func(file *server.ServerConfigFile) { file.Runtime.Healthcheck = false },
	)
	if err != nil {
		return fmt.Errorf("could not load the configuration: %w", err)
	}

	closeAPI, err := startAPI(config)
	if err != nil {
		return fmt.Errorf("could not start the API: %w", err)
	}

	steps := cleanup.New(config.Logger)
	steps.Add(closeAPI, "api")

	if err := engine.RunWithConfig(ctx, config, &steps); err != nil {
		return fmt.Errorf("could not run the engine: %w", err)
	}

	steps.Add(closeServer, "server")
	steps.Add(config.Disconnect, "database")

	return steps.Run()
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
