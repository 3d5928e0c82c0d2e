;; Numbers below a hundred of one kind: primes, squares or cubes, as its first argument says.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  ;; 0: two words for what functions give back, and the one vector that is written
  ;; 64: places of the arguments; 1024: the arguments; 32768: the text
  (memory (export "memory") 1)
  (global $end (mut i32) (i32.const 32768))

  (func $byte (param $byte i32)
    (i32.store8 (global.get $end) (local.get $byte))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))

  (func $number (param $n i32)
    (if (i32.ge_u (local.get $n) (i32.const 10))
      (then (call $number (i32.div_u (local.get $n) (i32.const 10)))))
    (call $byte (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10)))))

  (func $is_prime (param $n i32) (result i32) (local $d i32)
    (local.set $d (i32.const 2))
    (loop $next (result i32)
      (if (i32.gt_u (i32.mul (local.get $d) (local.get $d)) (local.get $n))
        (then (return (i32.ge_u (local.get $n) (i32.const 2)))))
      (if (i32.eqz (i32.rem_u (local.get $n) (local.get $d)))
        (then (return (i32.const 0))))
      (local.set $d (i32.add (local.get $d) (i32.const 1)))
      (br $next)))

  ;; Whether it is a number multiplied with itself so often.
  (func $is_power (param $n i32) (param $times i32) (result i32) (local $d i32) (local $p i32) (local $t i32)
    (local.set $d (i32.const 1))
    (loop $next (result i32)
      (local.set $p (i32.const 1))
      (local.set $t (local.get $times))
      (loop $multiply
        (local.set $p (i32.mul (local.get $p) (local.get $d)))
        (local.set $t (i32.sub (local.get $t) (i32.const 1)))
        (br_if $multiply (local.get $t)))
      (if (i32.ge_u (local.get $p) (local.get $n))
        (then (return (i32.eq (local.get $p) (local.get $n)))))
      (local.set $d (i32.add (local.get $d) (i32.const 1)))
      (br $next)))

  (func $is (param $kind i32) (param $n i32) (result i32)
    (if (i32.eq (local.get $kind) (i32.const 112)) ;; p
      (then (return (call $is_prime (local.get $n)))))
    (if (i32.eq (local.get $kind) (i32.const 115)) ;; s
      (then (return (call $is_power (local.get $n) (i32.const 2)))))
    (if (i32.eq (local.get $kind) (i32.const 99)) ;; c
      (then (return (call $is_power (local.get $n) (i32.const 3)))))
    (call $proc_exit (i32.const 2))
    (unreachable))

  (func (export "_start") (local $n i32) (local $kind i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.ne (i32.load (i32.const 0)) (i32.const 2))
      (then (call $proc_exit (i32.const 2))))
    (drop (call $args_get (i32.const 64) (i32.const 1024)))
    (local.set $kind (i32.load8_u (i32.load (i32.const 68))))
    (local.set $n (i32.const 1))
    (loop $next
      (if (call $is (local.get $kind) (local.get $n))
        (then
          (call $number (local.get $n))
          (call $byte (i32.const 32))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (i32.const 100))))
    ;; The last space becomes the end of the line.
    (i32.store8 (i32.sub (global.get $end) (i32.const 1)) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 32768))
    (i32.store (i32.const 4) (i32.sub (global.get $end) (i32.const 32768)))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
