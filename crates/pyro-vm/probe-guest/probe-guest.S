/*
 * A minimal guest that shows whether an accelerator really runs guests.
 *
 * It is a 64 KiB firmware image: it starts at the reset vector, climbs to
 * long mode and executes the few things an ordinary kernel cannot do without.
 * The README next to this file lists the steps and the results.
 */

/* Where the firmware is visible to real mode code, matched by the linker script. */
#define ROM_SEGMENT         0xf000
/* The reset code is what ends the image, so it is padded to its full size. */
#define RESET_CODE_SIZE     16

/* Low RAM. Everything between TABLES and TABLES_END is cleared at the start. */
#define TABLES              0x1000
#define PML4_A              0x1000
#define PDPT_A              0x2000
#define PD_A                0x3000
#define PML4_B              0x4000
#define PDPT_B              0x5000
#define PD_B                0x6000
#define GDT                 0x7000
#define IDT                 0x8000
#define TSS                 0x9000
#define VARIABLES           0xa000
#define TABLES_END          0xb000
#define KERNEL_STACK_TOP    0x10000
#define TRAP_STACK_TOP      0x18000

#define EXCHANGE_OPERAND    (VARIABLES + 0x00)  /* 16 bytes, 16-byte aligned */
#define SAVED_KERNEL_RSP    (VARIABLES + 0x10)
#define BREAKPOINT_COUNT    (VARIABLES + 0x18)
#define BREAKPOINT_CS       (VARIABLES + 0x20)

/* Address space: 16 MiB of RAM mapped one to one, in large pages. */
#define LARGE_PAGE_SHIFT    21
#define LARGE_PAGE_SIZE     (1 << LARGE_PAGE_SHIFT)
#define SMALL_PAGE_SIZE     0x1000
#define RAM_LARGE_PAGES     8
#define USER_LARGE_PAGE     1
#define USER_CODE           (USER_LARGE_PAGE << LARGE_PAGE_SHIFT)
#define USER_STACK_TOP      (USER_CODE + LARGE_PAGE_SIZE)
/* One page above RAM, backed by a different frame in each set of tables. */
#define WINDOW_LARGE_PAGE   RAM_LARGE_PAGES
#define WINDOW              (WINDOW_LARGE_PAGE << LARGE_PAGE_SHIFT)
#define WINDOW_FRAME_A      (4 << LARGE_PAGE_SHIFT)
#define WINDOW_FRAME_B      (5 << LARGE_PAGE_SHIFT)
/* The RAM touched page by page: all of it above the user page. */
#define TOUCH_START         (2 << LARGE_PAGE_SHIFT)
#define TOUCH_END           (RAM_LARGE_PAGES << LARGE_PAGE_SHIFT)

#define PAGE_PRESENT        0x01
#define PAGE_WRITABLE       0x02
#define PAGE_USER           0x04
#define PAGE_LARGE          0x80
#define TABLE_FLAGS         (PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER)
#define KERNEL_PAGE_FLAGS   (PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE)
#define TABLE_ENTRY_SIZE    8

/* Control registers and model-specific registers. */
#define CR0_PE              0x00000001
#define CR0_ET              0x00000010
#define CR0_NE              0x00000020
#define CR0_WP              0x00010000
#define CR0_PG              0x80000000
#define CR0_PROTECTED       (CR0_PE | CR0_ET | CR0_NE)
#define CR0_LONG            (CR0_PROTECTED | CR0_WP | CR0_PG)
#define CR4_PAE             0x20
#define MSR_EFER            0xc0000080
#define MSR_STAR            0xc0000081
#define MSR_LSTAR           0xc0000082
#define MSR_FMASK           0xc0000084
#define EFER_SCE            0x001
#define EFER_LME            0x100
#define RFLAGS_RESERVED     0x002
#define RFLAGS_TRAP         0x100
#define RFLAGS_INTERRUPT    0x200
#define RFLAGS_DIRECTION    0x400
#define SYSCALL_CLEARS      (RFLAGS_TRAP | RFLAGS_INTERRUPT | RFLAGS_DIRECTION)
#define CPUID_FEATURES      1
#define CPUID_ECX_POPCNT    23

/*
 * Selectors. The order is what syscall and sysret expect: the kernel's stack
 * segment follows its code segment, and the user's stack and code segments
 * follow the base selector by one and two entries.
 */
#define KERNEL_CODE         0x08
#define KERNEL_DATA         0x10
#define BOOT_CODE           0x18
#define USER_DATA           (0x20 | RING3)
#define USER_CODE_SELECTOR  (0x28 | RING3)
#define TASK_STATE          0x30
#define RING3               3
#define SYSRET_BASE         (BOOT_CODE | RING3)

/*
 * Descriptors. The accessed bit is already set, so that loading a selector
 * never writes to the table while that is still in the ROM.
 */
#define DESCRIPTOR_CODE64_R0 0x00af9b000000ffff
#define DESCRIPTOR_CODE64_R3 0x00affb000000ffff
#define DESCRIPTOR_CODE32_R0 0x00cf9b000000ffff
#define DESCRIPTOR_DATA_R0   0x00cf93000000ffff
#define DESCRIPTOR_DATA_R3   0x00cff3000000ffff
#define DESCRIPTOR_TSS_TYPE  0x89
#define TSS_SIZE             0x68
#define TSS_RSP0             4
#define TSS_IO_MAP_BASE      0x66

/* Interrupt gates. */
#define GATE_SIZE           16
#define GATE_SELECTOR       2
#define GATE_ATTRIBUTES     4
#define GATE_OFFSET_MIDDLE  6
#define GATE_KERNEL         0x8e00
#define GATE_USER           0xee00
#define VECTORS             32
#define VECTOR_BREAKPOINT   3
#define VECTOR_STUB_SIZE    8

/* The frame the processor pushes for an exception without an error code. */
#define FRAME_CS            8

/* Devices. */
#define COM1_DATA           0x3f8
#define COM1_LINE_STATUS    0x3fd
#define LINE_CAN_SEND       0x20
#define LINE_ALL_SENT       0x40
/* A host that never drains the port must not keep the guest here for good. */
#define SERIAL_POLLS        100000
#define EXIT_PORT           0xf4
#define EXIT_OK             0x31
#define EXIT_FAILED_CHECK   0x32
#define EXIT_EXCEPTION      0x33

/* Values the checks look for; any others would do. */
#define EXCHANGE_OLD_LOW    0x1111111122222222
#define EXCHANGE_OLD_HIGH   0x3333333344444444
#define EXCHANGE_NEW_LOW    0x5555555566666666
#define EXCHANGE_NEW_HIGH   0x7777777788888888
#define POPCNT_OPERAND      0xf0f0f0f00000ff01
#define POPCNT_RESULT       25
#define USER_TOKEN          0x5059524f
#define MARK_A              0xaaaa0001
#define MARK_B              0xbbbb0002
#define TOUCH_MIX           0x5a5a5a5a
/*
 * Some 10 ms for a processor and 25 ms for a translator, but many seconds for
 * a host that emulates each instruction on its own.
 */
#define LOOP_COUNT          20000000
#define LOOP_SUM            (LOOP_COUNT * (LOOP_COUNT + 1) / 2)

/* Names the step in progress, for whichever report comes next. */
.macro step name
        leaq    \name(%rip), %r15
.endm

        .section .rom, "ax", @progbits
rom_start:

/* ---- Real mode ---------------------------------------------------------- */

        .code16
        .globl  real_mode_entry
real_mode_entry:
        cli
        cld
        /* Without a table an early exception shuts the machine down at once
           instead of running whatever the interrupt vectors point to. */
        lidtl   %cs:(no_idt_pointer - rom_start)
        lgdtl   %cs:(rom_gdt_pointer - rom_start)
        movl    $CR0_PROTECTED, %eax
        movl    %eax, %cr0
        ljmpl   $BOOT_CODE, $protected_mode_entry

/* ---- Protected mode ----------------------------------------------------- */

        .code32
protected_mode_entry:
        movw    $KERNEL_DATA, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss

        movl    $TABLES, %edi
        movl    $((TABLES_END - TABLES) / 4), %ecx
        xorl    %eax, %eax
        rep stosl

        /* Loading the task register writes to the GDT, so it must be in RAM. */
        movl    $rom_gdt, %esi
        movl    $GDT, %edi
        movl    $((rom_gdt_end - rom_gdt) / 4), %ecx
        rep movsl

        movl    $(PDPT_A | TABLE_FLAGS), PML4_A
        movl    $(PD_A | TABLE_FLAGS), PDPT_A
        movl    $(PDPT_B | TABLE_FLAGS), PML4_B
        movl    $(PD_B | TABLE_FLAGS), PDPT_B

        xorl    %ecx, %ecx
        movl    $KERNEL_PAGE_FLAGS, %eax
1:      movl    %eax, PD_A(, %ecx, TABLE_ENTRY_SIZE)
        movl    %eax, PD_B(, %ecx, TABLE_ENTRY_SIZE)
        addl    $LARGE_PAGE_SIZE, %eax
        incl    %ecx
        cmpl    $RAM_LARGE_PAGES, %ecx
        jne     1b
        orl     $PAGE_USER, PD_A + USER_LARGE_PAGE * TABLE_ENTRY_SIZE
        orl     $PAGE_USER, PD_B + USER_LARGE_PAGE * TABLE_ENTRY_SIZE
        movl    $(WINDOW_FRAME_A | KERNEL_PAGE_FLAGS), PD_A + WINDOW_LARGE_PAGE * TABLE_ENTRY_SIZE
        movl    $(WINDOW_FRAME_B | KERNEL_PAGE_FLAGS), PD_B + WINDOW_LARGE_PAGE * TABLE_ENTRY_SIZE

        movl    $CR4_PAE, %eax
        movl    %eax, %cr4
        movl    $PML4_A, %eax
        movl    %eax, %cr3
        movl    $MSR_EFER, %ecx
        movl    $(EFER_LME | EFER_SCE), %eax
        xorl    %edx, %edx
        wrmsr
        movl    $CR0_LONG, %eax
        movl    %eax, %cr0
        lgdtl   ram_gdt_pointer
        ljmpl   $KERNEL_CODE, $long_mode_entry

/* ---- Long mode ---------------------------------------------------------- */

        .code64
long_mode_entry:
        movl    $KERNEL_STACK_TOP, %esp
        step    step_tables
        call    load_idt
        call    load_task_state
        call    enable_syscall
        step    step_cmpxchg16b
        call    check_cmpxchg16b
        step    step_popcnt
        call    check_popcnt
        step    step_int3
        call    check_int3
        call    copy_user_code
        step    step_iretq
        call    check_iretq
        step    step_sysretq
        call    check_sysretq
        step    step_cr3
        call    check_cr3
        step    step_memory
        call    check_memory
        step    step_loop
        call    check_loop

        leaq    text_ok(%rip), %rsi
        call    print
        movb    $EXIT_OK, %bl
        jmp     leave

load_idt:
        movl    $IDT, %edi
        leaq    vector_stubs(%rip), %rax
        movl    $VECTORS, %ecx
1:      movl    $GATE_KERNEL, %edx
        call    set_gate
        addq    $GATE_SIZE, %rdi
        addq    $VECTOR_STUB_SIZE, %rax
        decl    %ecx
        jnz     1b
        /* The breakpoint is the one exception that is meant to come back,
           and the one that code in ring 3 may raise by itself. */
        movl    $(IDT + VECTOR_BREAKPOINT * GATE_SIZE), %edi
        leaq    breakpoint_handler(%rip), %rax
        movl    $GATE_USER, %edx
        call    set_gate
        lidtq   idt_pointer(%rip)
        ret

/* Gate at rdi, handler at rax (below 4 GiB), attributes in edx. */
set_gate:
        movw    %ax, (%rdi)
        movw    $KERNEL_CODE, GATE_SELECTOR(%rdi)
        movw    %dx, GATE_ATTRIBUTES(%rdi)
        movl    %eax, %edx
        shrl    $16, %edx
        movw    %dx, GATE_OFFSET_MIDDLE(%rdi)
        ret

load_task_state:
        /* A stack of its own: an exception in ring 3 must not overwrite the
           frames of the kernel code that is waiting for the system call. */
        movq    $TRAP_STACK_TOP, TSS + TSS_RSP0
        movw    $TSS_SIZE, TSS + TSS_IO_MAP_BASE
        movw    $TASK_STATE, %ax
        ltr     %ax
        ret

enable_syscall:
        movl    $MSR_STAR, %ecx
        xorl    %eax, %eax
        movl    $((SYSRET_BASE << 16) | KERNEL_CODE), %edx
        wrmsr
        movl    $MSR_LSTAR, %ecx
        leaq    syscall_entry(%rip), %rax
        xorl    %edx, %edx
        wrmsr
        movl    $MSR_FMASK, %ecx
        movl    $SYSCALL_CLEARS, %eax
        wrmsr
        ret

check_cmpxchg16b:
        movl    $EXCHANGE_OPERAND, %edi
        movabsq $EXCHANGE_OLD_LOW, %rax
        movabsq $EXCHANGE_OLD_HIGH, %rdx
        movabsq $EXCHANGE_NEW_LOW, %rbx
        movabsq $EXCHANGE_NEW_HIGH, %rcx
        movq    %rax, (%rdi)
        movq    %rdx, 8(%rdi)
        /* Equal: the operand takes the new value. */
        lock cmpxchg16b (%rdi)
        jnz     failed
        cmpq    %rbx, (%rdi)
        jne     failed
        cmpq    %rcx, 8(%rdi)
        jne     failed
        /* No longer equal: the registers take the operand's value. */
        lock cmpxchg16b (%rdi)
        jz      failed
        cmpq    %rbx, %rax
        jne     failed
        cmpq    %rcx, %rdx
        jne     failed
        ret

check_popcnt:
        movl    $CPUID_FEATURES, %eax
        xorl    %ecx, %ecx
        cpuid
        btl     $CPUID_ECX_POPCNT, %ecx
        jnc     1f
        movabsq $POPCNT_OPERAND, %rdx
        popcntq %rdx, %rax
        cmpq    $POPCNT_RESULT, %rax
        jne     failed
1:      ret

check_int3:
        int3
        cmpl    $1, BREAKPOINT_COUNT
        jne     failed
        cmpl    $KERNEL_CODE, BREAKPOINT_CS
        jne     failed
        ret

copy_user_code:
        leaq    user_code(%rip), %rsi
        movl    $USER_CODE, %edi
        movl    $(user_code_end - user_code), %ecx
        rep movsb
        ret

check_iretq:
        movl    $USER_TOKEN, %edi
        call    enter_ring3_with_iretq
        jmp     check_ring3_result

check_sysretq:
        movl    $USER_TOKEN, %edi
        call    enter_ring3_with_sysretq

/* The registers are as user_code left them at its system call. */
check_ring3_result:
        cmpl    $~USER_TOKEN, %edi
        jne     failed
        cmpl    $USER_CODE_SELECTOR, %eax
        jne     failed
        cmpl    $USER_CODE_SELECTOR, BREAKPOINT_CS
        jne     failed
        cmpq    $(USER_CODE + user_code_end - user_code), %rcx
        jne     failed
        movw    %cs, %ax
        cmpw    $KERNEL_CODE, %ax
        jne     failed
        ret

/* Both return to their caller by way of syscall_entry. */
enter_ring3_with_iretq:
        movl    $0, BREAKPOINT_CS
        movq    %rsp, SAVED_KERNEL_RSP
        pushq   $USER_DATA
        pushq   $USER_STACK_TOP
        pushq   $RFLAGS_RESERVED
        pushq   $USER_CODE_SELECTOR
        pushq   $USER_CODE
        iretq

enter_ring3_with_sysretq:
        movl    $0, BREAKPOINT_CS
        movq    %rsp, SAVED_KERNEL_RSP
        movl    $USER_CODE, %ecx
        movl    $RFLAGS_RESERVED, %r11d
        movl    $USER_STACK_TOP, %esp
        sysretq

syscall_entry:
        movq    SAVED_KERNEL_RSP, %rsp
        ret

/* Runs in ring 3, from a copy in the user page: its stack and its code
   segment are in use, and it takes an exception before the system call. */
user_code:
        pushq   %rdi
        int3
        popq    %rdi
        notl    %edi
        movl    %cs, %eax
        syscall
user_code_end:

check_cr3:
        movl    $MARK_A, WINDOW_FRAME_A
        movl    $MARK_B, WINDOW_FRAME_B
        cmpl    $MARK_A, WINDOW
        jne     failed
        movl    $PML4_B, %eax
        movq    %rax, %cr3
        cmpl    $MARK_B, WINDOW
        jne     failed
        movl    $PML4_A, %eax
        movq    %rax, %cr3
        cmpl    $MARK_A, WINDOW
        jne     failed
        ret

check_memory:
        /* Each page gets a value of its own before any is read back, so that
           pages which share a frame are noticed. */
        movl    $TOUCH_START, %edi
1:      movl    %edi, %eax
        xorl    $TOUCH_MIX, %eax
        movl    %eax, (%rdi)
        addl    $SMALL_PAGE_SIZE, %edi
        cmpl    $TOUCH_END, %edi
        jne     1b
        movl    $TOUCH_START, %edi
2:      movl    %edi, %eax
        xorl    $TOUCH_MIX, %eax
        cmpl    %eax, (%rdi)
        jne     failed
        addl    $SMALL_PAGE_SIZE, %edi
        cmpl    $TOUCH_END, %edi
        jne     2b
        ret

check_loop:
        xorl    %eax, %eax
        movl    $LOOP_COUNT, %ecx
1:      addq    %rcx, %rax
        decq    %rcx
        jnz     1b
        movabsq $LOOP_SUM, %rdx
        cmpq    %rdx, %rax
        jne     failed
        ret

/* ---- Exceptions and reports --------------------------------------------- */

breakpoint_handler:
        pushq   %rax
        movl    8 + FRAME_CS(%rsp), %eax
        movl    %eax, BREAKPOINT_CS
        incl    BREAKPOINT_COUNT
        popq    %rax
        iretq

/* One stub for each vector, all of one size. None returns, so it does not
   matter which of them find an error code on the stack. */
        .balign VECTOR_STUB_SIZE
vector_stubs:
        .set    vector, 0
        .rept   VECTORS
        .balign VECTOR_STUB_SIZE
        pushq   $vector
        jmp     unexpected_exception
        .set    vector, vector + 1
        .endr

unexpected_exception:
        popq    %r14
        call    print_failure
        leaq    text_vector(%rip), %rsi
        call    print
        movl    %r14d, %eax
        movb    $10, %cl
        divb    %cl
        addw    $(('0' << 8) | '0'), %ax
        movl    %eax, %r14d
        call    send
        movl    %r14d, %eax
        shrl    $8, %eax
        call    send
        movb    $EXIT_EXCEPTION, %bl
        jmp     end_line_and_leave

failed:
        call    print_failure
        movb    $EXIT_FAILED_CHECK, %bl

end_line_and_leave:
        leaq    text_end_of_line(%rip), %rsi
        call    print

/* Ends the machine with the value in bl, once the line has left the port. */
leave:
        movb    $LINE_ALL_SENT, %ah
        call    wait_line
        movb    %bl, %al
        outb    %al, $EXIT_PORT
1:      hlt
        jmp     1b

print_failure:
        leaq    text_fail(%rip), %rsi
        call    print
        movq    %r15, %rsi

/* Zero-terminated text at rsi. */
print:
        lodsb
        testb   %al, %al
        jz      1f
        call    send
        jmp     print
1:      ret

/* The character in al. */
send:
        movb    %al, %r8b
        movb    $LINE_CAN_SEND, %ah
        call    wait_line
        movw    $COM1_DATA, %dx
        movb    %r8b, %al
        outb    %al, %dx
        ret

/* Until a bit of ah is set in the line status, or patience ends. */
wait_line:
        movw    $COM1_LINE_STATUS, %dx
        movl    $SERIAL_POLLS, %ecx
1:      inb     %dx, %al
        testb   %ah, %al
        jnz     2f
        decl    %ecx
        jnz     1b
2:      ret

/* ---- Constant data ------------------------------------------------------ */

        .balign 8
rom_gdt:
        .quad   0
        .quad   DESCRIPTOR_CODE64_R0
        .quad   DESCRIPTOR_DATA_R0
        .quad   DESCRIPTOR_CODE32_R0
        .quad   DESCRIPTOR_DATA_R3
        .quad   DESCRIPTOR_CODE64_R3
        /* TASK_STATE: a 16-byte system descriptor; the TSS is below 64 KiB. */
        .word   TSS_SIZE - 1, TSS
        .byte   0, DESCRIPTOR_TSS_TYPE, 0, 0
        .quad   0
rom_gdt_end:

no_idt_pointer:
        .word   0
        .long   0
rom_gdt_pointer:
        .word   rom_gdt_end - rom_gdt - 1
        .long   rom_gdt
ram_gdt_pointer:
        .word   rom_gdt_end - rom_gdt - 1
        .long   GDT
idt_pointer:
        .word   VECTORS * GATE_SIZE - 1
        .quad   IDT

text_ok:            .asciz "PYRO-PROBE-OK\n"
text_fail:          .asciz "PYRO-PROBE-FAIL "
text_vector:        .asciz " vector-"
text_end_of_line:   .asciz "\n"

step_tables:        .asciz "tables"
step_cmpxchg16b:    .asciz "cmpxchg16b"
step_popcnt:        .asciz "popcnt"
step_int3:          .asciz "int3"
step_iretq:         .asciz "ring3-iretq"
step_sysretq:       .asciz "ring3-sysretq"
step_cr3:           .asciz "cr3"
step_memory:        .asciz "memory"
step_loop:          .asciz "loop"

/* ---- Reset vector ------------------------------------------------------- */

        .section .reset, "ax", @progbits
        .code16
        /* The far jump leaves the mapping below 4 GiB, where the processor
           starts, for the one below 1 MiB. */
        ljmpw   $ROM_SEGMENT, $real_mode_offset
        .balign RESET_CODE_SIZE, 0

        .section .note.GNU-stack, "", @progbits
