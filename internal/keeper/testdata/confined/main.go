// Command confined confines itself, with threads in every state, and prints
// what the kernel says about each of them and about a program it executes.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/tapestry-net/tapestry/internal/keeper"
	"golang.org/x/sys/unix"
)

func main() {
	hold := make(chan bool)
	ready := make(chan bool)
	thread := func() {
		runtime.LockOSThread()
		ready <- true
		<-hold
	}
	for range 8 {
		go thread()
		<-ready
	}
	if err := keeper.Confine(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go thread() // one made afterwards
	<-ready
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Stdout.Write(b)
	}
	child, err := exec.Command("cat", "/proc/self/status").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(child)
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	fmt.Printf("Dumpable:\t%d\nMount:\t%v\n", dumpable, unix.Mount("none", "/tmp", "tmpfs", 0, ""))
}
