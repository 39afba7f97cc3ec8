package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tapestry-net/tapestry/internal/api"
)

// target is a namespace in the words of api.AttachRequest.
type target struct {
	Netns string // name, absolute path or pid:N
	Label string // what a port may be named after
}

const defaultDocker = "unix:///var/run/docker.sock"

// engineTimeout bounds one question to the container engine.
const engineTimeout = 10 * time.Second

var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

// resolve reads netns:NAME, pid:N, an absolute path, or the name or ID of a
// Docker container, of which only the process number is taken from the engine.
// Errors are *api.Error.
func resolve(ctx context.Context, s string) (target, error) {
	if name, ok := strings.CutPrefix(s, "netns:"); ok {
		if name == "" || strings.ContainsRune(name, '/') || name == "." || name == ".." {
			return target{}, api.Errorf(api.CodeInvalid, "namespace name %q: want a name as `ip netns` lists it", name)
		}
		return target{Netns: name, Label: name}, nil
	}
	if n, ok := strings.CutPrefix(s, "pid:"); ok {
		if v, err := strconv.ParseUint(n, 10, 31); err != nil || v == 0 || n[0] == '+' {
			return target{}, api.Errorf(api.CodeInvalid, "process number %q: want a number from 1", n)
		}
		return target{Netns: s, Label: "pid" + n}, nil
	}
	if path.IsAbs(s) {
		return target{Netns: path.Clean(s), Label: label(s)}, nil
	}
	if !containerName.MatchString(s) {
		return target{}, api.Errorf(api.CodeInvalid, "target %q is no netns:NAME, pid:N, absolute path or container name", s)
	}
	pid, err := inspect(ctx, s)
	if err != nil {
		if _, statErr := os.Stat("/run/netns/" + s); statErr == nil {
			err = err.WithHint("for the namespace of that name, say netns:%s", s)
		}
		return target{}, err
	}
	return target{Netns: "pid:" + strconv.Itoa(pid), Label: s}, nil
}

// label is pidN for a process's namespace and the last element otherwise.
func label(p string) string {
	parts := strings.Split(path.Clean(p), "/")
	if len(parts) == 5 && parts[1] == "proc" && parts[3] == "ns" {
		return "pid" + parts[2]
	}
	return path.Base(p)
}

// inspect asks the Docker engine for the first process of a container.
func inspect(ctx context.Context, name string) (int, *api.Error) {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = defaultDocker
	}
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return 0, api.Errorf(api.CodeInvalid, "DOCKER_HOST %q: a container can only be attached on its own host, by a unix socket", host).
			WithHint("unset DOCKER_HOST, or set it to %s", defaultDocker)
	}
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	var d net.Dialer
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/containers/"+url.PathEscape(name)+"/json", nil)
	if err != nil {
		return 0, api.Errorf(api.CodeInvalid, "ask for container %s: %v", name, err)
	}
	resp, err := tr.RoundTrip(req)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return 0, api.Errorf(api.CodeNotPermitted, "ask the Docker engine for container %s: %v", name, err).
			WithHint("run the command as root, or join the group docker")
	case err != nil:
		return 0, api.Errorf(api.CodeFailed, "ask the Docker engine for container %s: %v", name, err).
			WithHint("start the engine, or name its socket in DOCKER_HOST; for a namespace say netns:%s", name)
	}
	defer resp.Body.Close()
	pid, err := firstProcess(resp)
	if err != nil {
		return 0, api.AsError(fmt.Errorf("find container %s: %w", name, err))
	}
	return pid, nil
}

// firstProcess reads the engine's answer.
func firstProcess(resp *http.Response) (int, error) {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return 0, api.Errorf(api.CodeNotFound, "no such container").WithHint("`docker ps` lists those that run")
	default:
		return 0, fmt.Errorf("the Docker engine answers %s", resp.Status)
	}
	var doc struct {
		State struct {
			Running bool
			Pid     int
		}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4<<20)).Decode(&doc); err != nil {
		return 0, fmt.Errorf("read the Docker engine's answer: %w", err)
	}
	if !doc.State.Running || doc.State.Pid <= 0 {
		return 0, api.Errorf(api.CodeFailed, "the container is not running").WithHint("docker start it first")
	}
	return doc.State.Pid, nil
}
