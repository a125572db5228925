// The cel-go part of the expression benchmark. It reads workloads as JSON from standard input and prints a line for each, as the Rust
// program does. Messages are converted to Go values once; only Eval is measured, without the conversion of its result.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"syscall"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

type workload struct {
	Name    string
	Source  string
	Message any
}

// cpuTime is the CPU time of this process, including the garbage collector.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure returns nanoseconds per evaluation. It first spends a tenth of the time on warming up and estimating the number of evaluations.
func measure(limit time.Duration, evaluate func()) float64 {
	batch := 1
	var once time.Duration
	for {
		begun := cpuTime()
		for range batch {
			evaluate()
		}
		if taken := cpuTime() - begun; taken >= limit/10 {
			once = taken / time.Duration(batch)
			break
		}
		batch *= 2
	}
	count := max(int(limit/max(once, 1)), 1)
	begun := cpuTime()
	for range count {
		evaluate()
	}
	return float64(cpuTime()-begun) / float64(count)
}

// native converts integers to int64 and other numbers to float64; with doubles, all numbers to float64.
func native(value any, doubles bool) any {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil && !doubles {
			return whole
		}
		number, err := value.Float64()
		if err != nil {
			log.Fatal(err)
		}
		return number
	case []any:
		for at := range value {
			value[at] = native(value[at], doubles)
		}
	case map[string]any:
		for name := range value {
			value[name] = native(value[name], doubles)
		}
	}
	return value
}

// sum adds a list of doubles, which cel-go does not support itself.
func sum(list ref.Val) ref.Val {
	total := types.Double(0)
	for items := list.(traits.Lister).Iterator(); items.HasNext() == types.True; {
		number, ok := items.Next().(types.Double)
		if !ok {
			return types.NewErr("sum requires a list of doubles")
		}
		total += number
	}
	return total
}

func result(value ref.Val) any {
	list, ok := value.(traits.Lister)
	if !ok {
		return value.Value()
	}
	items := []any{}
	for iterator := list.Iterator(); iterator.HasNext() == types.True; {
		items = append(items, iterator.Next().Value())
	}
	return items
}

func main() {
	var input struct {
		Milliseconds int
		Workloads    []workload
	}
	decoder := json.NewDecoder(os.Stdin)
	decoder.UseNumber()
	if err := decoder.Decode(&input); err != nil {
		log.Fatal(err)
	}
	environment, err := cel.NewEnv(
		cel.Variable("req", cel.MapType(cel.StringType, cel.DynType)),
		cel.Function("sum", cel.Overload("sum_list", []*cel.Type{cel.ListType(cel.DynType)}, cel.DoubleType, cel.UnaryBinding(sum))),
	)
	if err != nil {
		log.Fatal(err)
	}
	for _, workload := range input.Workloads {
		tree, issues := environment.Compile(workload.Source)
		if issues.Err() != nil {
			log.Fatal(issues.Err())
		}
		program, err := environment.Program(tree, cel.EvalOptions(cel.OptOptimize))
		if err != nil {
			log.Fatal(err)
		}
		// CEL has no decimals and does not mix number types.
		doubles := strings.HasPrefix(workload.Source, "sum(")
		activation := map[string]any{"req": native(workload.Message, doubles)}
		var last ref.Val
		nanoseconds := measure(time.Duration(input.Milliseconds)*time.Millisecond, func() {
			value, _, err := program.Eval(activation)
			if err != nil {
				log.Fatal(err)
			}
			last = value
		})
		line, err := json.Marshal(map[string]any{"name": workload.Name, "nanoseconds": nanoseconds, "result": result(last)})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(line))
	}
}
