package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"golang.org/x/sys/unix"
)

// serveS3 serves the objects below DIR/objects until the process is told to stop: one port on
// loopback, one key, one bucket. An object is a file that is linked into its place when it is whole.
func serveS3(ctx context.Context, dir string) error {
	access, secret := os.Getenv("SCYTHE_S3_ACCESS_KEY"), os.Getenv("SCYTHE_S3_SECRET_KEY")
	if access == "" || secret == "" {
		return errors.New("the S3 server needs a key")
	}

	backend, err := openObjects(dir, os.Getenv("SCYTHE_S3_BUCKET"), access)
	if err != nil {
		return fmt.Errorf("could not open the objects: %w", err)
	}
	defer backend.Shutdown()

	root := middlewares.RootUserConfig{Access: access, Secret: secret}
	accounts := oneAccount{auth.NewIAMServiceSingle(auth.Account{Access: access, Secret: secret})}

	server, err := s3api.New(backend, root, os.Getenv("SCYTHE_S3_REGION"), accounts, nil, nil, nil, nil,
		s3api.WithQuiet(), s3api.WithKeepAlive(), s3api.WithMpMaxParts(10_000),
		s3api.WithConcurrencyLimiter(4096, 1024))
	if err != nil {
		return err
	}

	ended := make(chan error, 1)
	go func() {
		ended <- server.ServeMultiPort([]string{net.JoinHostPort("127.0.0.1", os.Getenv("SCYTHE_S3_PORT"))})
	}()

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return server.ShutDown()
	}
}

// oneAccount says of every other key that it is wrong, as S3 does, and not that nothing is there.
type oneAccount struct{ auth.IAMService }

func (one oneAccount) GetUserAccount(access string) (auth.Account, error) {
	account, err := one.IAMService.GetUserAccount(access)
	if err != nil {
		return account, auth.ErrNoSuchUser
	}

	return account, nil
}

// openObjects returns the files below DIR/objects as objects, with the bucket in place. What S3
// keeps beside an object's bytes goes into its extended attributes, or into files below
// DIR/attributes where the file system has none.
func openObjects(dir, bucket, access string) (*posix.Posix, error) {
	objects, attributes := filepath.Join(dir, "objects"), filepath.Join(dir, "attributes")
	if err := os.MkdirAll(objects, 0o700); err != nil {
		return nil, err
	}

	// A disk that is full is noticed now, not at the first result.
	probe := filepath.Join(dir, "probe")
	if err := os.WriteFile(probe, make([]byte, 4096), 0o600); err != nil {
		return nil, err
	}

	if err := os.Remove(probe); err != nil {
		return nil, err
	}

	options := posix.PosixOpts{SideCarDir: attributes}
	options.SetNewDirPerm(0o700)
	options.SetNewFilePerm(0o600)

	var storer meta.MetadataStorer

	_, missing := os.Stat(attributes)
	if missing != nil && unix.Setxattr(objects, "user.scythe", nil, 0) == nil {
		options.SideCarDir = ""
		storer = meta.XattrMeta{}
	} else {
		if err := os.MkdirAll(attributes, 0o700); err != nil {
			return nil, err
		}

		sidecar, err := meta.NewSideCar(attributes)
		if err != nil {
			return nil, err
		}

		storer = sidecar
	}

	backend, err := posix.New(objects, storer, options) // which changes to the folder
	if err != nil {
		return nil, err
	}

	if err := os.MkdirAll(bucket, 0o700); err != nil {
		return nil, err
	}

	owner, err := json.Marshal(auth.ACL{Owner: access})
	if err != nil {
		return nil, err
	}

	return backend, storer.StoreAttribute(nil, bucket, "", "acl", owner)
}
